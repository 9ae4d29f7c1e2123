"""The JSON of a model's health."""

from __future__ import annotations

from pydantic import BaseModel, Field

from jobs.drift import VersionDrift
from model_store.drift import SignalDrift


class SignalView(BaseModel):
    """One signal of a version's last jobs against its reference."""

    signal: str = Field(description="What is compared.", examples=["nqm", "roughness_x"])
    jobs: int = Field(description="Jobs of the window that have it.")
    ks: float = Field(description="Kolmogorov-Smirnov distance, 0 to 1.")
    limit: float = Field(description="The distance from which on it is an alarm.")
    alarm: bool
    median: float | None = Field(description="Of the window; null where most values are undefined.")
    reference_median: float | None


class VersionHealth(BaseModel):
    """A version's last jobs, all clients' together."""

    version: str
    jobs: int = Field(description="Jobs in the window.")
    reference_scans: int | None = Field(description="Null where the version has no reference: nothing is compared.")
    alarm: bool
    signals: list[SignalView]


class ModelHealth(BaseModel):
    """Versions of a model that have jobs."""

    model: str
    versions: list[VersionHealth]


def version_health(found: VersionDrift) -> VersionHealth:
    """As clients see it."""
    return VersionHealth(
        version=found.version,
        jobs=found.jobs,
        reference_scans=found.scans,
        alarm=bool(found.alarms),
        signals=[_signal(one) for one in found.signals],
    )


def _signal(one: SignalDrift) -> SignalView:
    return SignalView(
        signal=one.signal,
        jobs=one.jobs,
        ks=one.ks,
        limit=one.limit,
        alarm=one.alarm,
        median=one.median,
        reference_median=one.reference_median,
    )
