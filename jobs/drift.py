"""The drift monitor: the last jobs of every version against the version's reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, select

from jobs.models import Job
from jobs.state import JobState
from model_store.drift import SignalDrift, compare
from model_store.errors import ModelStoreError
from model_store.manifest import Manifest
from model_store.reference import Reference
from model_store.registry import Registry
from model_store.signals import ENSEMBLE, output_signals
from ncagate.settings import Settings


@dataclass(frozen=True)
class VersionDrift:
    """What the last jobs of a version say.

    Attributes:
        jobs: in the window.
        scans: of the reference; None where the version has none, and nothing can be compared.
        signals: those of which the window has enough values.
    """

    model: str
    version: str
    jobs: int
    scans: int | None
    signals: tuple[SignalDrift, ...] = ()

    @property
    def alarms(self) -> tuple[str, ...]:
        """Signals that no longer look like the reference."""
        return tuple(one.signal for one in self.signals if one.alarm)


class DriftMonitor:
    """Compares at every call: nothing is remembered between calls but the references, so all gateways say the same.

    ``window`` and ``alpha`` are the settings of these names.
    """

    def __init__(self, engine: Engine, registry: Registry, *, window: int, alpha: float) -> None:
        self._engine, self._registry = engine, registry
        self._window, self._alpha = window, alpha
        self._references: dict[tuple[str, str], Reference] = {}

    @classmethod
    def of(cls, settings: Settings, engine: Engine, registry: Registry) -> DriftMonitor:
        """As a deployment has chosen."""
        return cls(engine, registry, window=settings.drift_window, alpha=settings.drift_alpha)

    def models(self) -> list[VersionDrift]:
        """Every model's (`model`); one that is damaged is left out."""
        found = []
        for name in self._registry.names():
            found += self.model(name)
        return found

    def model(self, name: str) -> list[VersionDrift]:
        """Of every usable version of a model that has finished a job whose row is still there.

        Raises:
            ModelNotFoundError: no such model.
        """
        found = []
        for version in self._registry.versions(name):
            results = self._results(name, version)
            if results and (one := self._version(name, version, results)) is not None:
                found.append(one)
        return found

    def _version(self, name: str, version: str, results: Sequence[Mapping[str, Any]]) -> VersionDrift | None:
        try:
            manifest = self._registry.manifest(name, version)
            reference = self._reference(manifest)
        except ModelStoreError:
            return None
        if reference is None:
            return VersionDrift(name, version, len(results), None)
        members = manifest.calibration.members
        window = [signals_of(result, members=members) for result in results]
        signals = compare(window, reference.signals, alpha=self._alpha)
        return VersionDrift(name, version, len(results), len(reference.scans), signals)

    def _reference(self, manifest: Manifest) -> Reference | None:
        key = (manifest.name, manifest.version)
        if key not in self._references:
            reference = self._registry.load_reference(manifest)
            if reference is None:
                return None
            self._references[key] = reference  # a version never changes
        return self._references[key]

    def _results(self, name: str, version: str) -> Sequence[Mapping[str, Any]]:
        """Result records of the last jobs, newest first."""
        query = (
            select(Job.result)
            .where(Job.model == name, Job.version == version, Job.state == JobState.SUCCEEDED)
            .order_by(Job.finished_at.desc())
            .limit(self._window)
        )
        with self._engine.connect() as connection:
            return [result for result in connection.scalars(query) if result]


def signals_of(result: Mapping[str, Any], *, members: int) -> dict[str, float]:
    """The signals of a finished job; of an ensemble of another size than the calibrated, those that all sizes have."""
    whole = result["segments"][-1] if result.get("segments") else result
    seen = output_signals(
        nqm=whole.get("nqm"), predicted_dice=whole.get("predicted_dice"), volume_ml=whole.get("volume_ml", 0.0)
    )
    if result.get("members") != members:
        seen = {name: value for name, value in seen.items() if name not in ENSEMBLE}
    return seen | (result.get("input_statistics") or {})
