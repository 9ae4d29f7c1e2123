"""The drift monitor and the shadow runs as metrics."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError

from jobs.drift import DriftMonitor, VersionDrift
from jobs.shadow import COMPARED, Comparison, Shadows
from ncagate.bucket import StorageUnavailableError

log = logging.getLogger(__name__)

_VERSION, _SIGNAL = ["model", "version"], ["model", "version", "signal"]
_PAIR = ["model", "version", "candidate"]


class DriftCollector(Collector):
    """Compares at every scrape. Labels are bounded: published versions, and the signals of their references."""

    def __init__(self, monitor: DriftMonitor) -> None:
        self._monitor = monitor

    def describe(self) -> Sequence[Metric]:
        """Nothing: registering must touch neither database nor store."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Nothing is said of a version without jobs, nor where the database or the store of models is away."""
        jobs = GaugeMetricFamily(
            "ncagate_drift_window_jobs",
            "Last jobs of a version that are compared with its reference.",
            labels=_VERSION,
        )
        distance = GaugeMetricFamily(
            "ncagate_drift_ks",
            "Kolmogorov-Smirnov distance between a version's last jobs and its reference.",
            labels=_SIGNAL,
        )
        alarm = GaugeMetricFamily("ncagate_drift_alarm", "Whether that distance is beyond chance.", labels=_SIGNAL)
        for found in self._found():
            jobs.add_metric([found.model, found.version], found.jobs)
            for one in found.signals:
                distance.add_metric([found.model, found.version, one.signal], one.ks)
                alarm.add_metric([found.model, found.version, one.signal], float(one.alarm))
        yield from (jobs, distance, alarm)

    def _found(self) -> list[VersionDrift]:
        try:
            return self._monitor.models()
        except (SQLAlchemyError, StorageUnavailableError) as error:
            log.warning("no drift metrics: %s", type(error).__name__)
            return []


class ShadowCollector(Collector):
    """Candidates against the versions in whose shadow they ran."""

    def __init__(self, shadows: Shadows) -> None:
        self._shadows = shadows

    def describe(self) -> Sequence[Metric]:
        """Nothing: registering must not touch the database."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Nothing where the database is away."""
        runs = GaugeMetricFamily(
            "ncagate_shadow_jobs", "Jobs that have a row and a candidate was tried on.", labels=[*_PAIR, "outcome"]
        )
        dice = GaugeMetricFamily(
            "ncagate_shadow_dice", "Mean Dice between a candidate's masks and its version's.", labels=_PAIR
        )
        for found in self._found():
            labels = [found.pair.model, found.pair.version, found.pair.candidate]
            for outcome, count in {**found.outcomes, COMPARED: found.jobs}.items():
                runs.add_metric([*labels, outcome], count)
            if found.dice is not None:
                dice.add_metric(labels, found.dice)
        yield from (runs, dice)

    def _found(self) -> list[Comparison]:
        try:
            return [self._shadows.compare(pair) for pair in self._shadows.pairs()]
        except SQLAlchemyError as error:
            log.warning("no shadow metrics: %s", type(error).__name__)
            return []
