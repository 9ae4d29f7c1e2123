"""The JSON of a model's health: drift, and candidates in the shadow of a version."""

from __future__ import annotations

from dataclasses import fields

from pydantic import BaseModel, Field

from jobs.drift import VersionDrift
from jobs.shadow import Comparison
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


class ShadowView(BaseModel):
    """A candidate that was tried on jobs that another version had answered; differences are candidate less version."""

    version: str
    candidate: str
    jobs: int = Field(description="On which both have a mask.")
    outcomes: dict[str, int] = Field(
        description="Runs without a mask, by code; `started` are under way, or their worker was stopped or died."
    )
    dice: float | None = Field(description="Mean Dice between the two masks.")
    dice_low: float | None = Field(description="5 % quantile.")
    nqm: float | None = Field(description="Mean difference.")
    predicted_dice: float | None = Field(description="Mean difference.")
    verdicts_changed: int
    slowdown: float | None = Field(description="Median of the candidate's time over the version's.")


class ModelHealth(BaseModel):
    """Versions of a model that have jobs, and candidates that were tried on some of them."""

    model: str
    versions: list[VersionHealth]
    shadows: list[ShadowView]


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


def shadow_view(found: Comparison) -> ShadowView:
    """As clients see it."""
    figures = {one.name: getattr(found, one.name) for one in fields(Comparison) if one.name != "pair"}
    return ShadowView(version=found.pair.version, candidate=found.pair.candidate, **figures)
