"""The drift monitor as metrics."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError

from jobs.drift import DriftMonitor, VersionDrift

log = logging.getLogger(__name__)

_VERSION, _SIGNAL = ["model", "version"], ["model", "version", "signal"]


class DriftCollector(Collector):
    """Compares at every scrape. Labels are bounded: published versions, and the signals of their references."""

    def __init__(self, monitor: DriftMonitor) -> None:
        self._monitor = monitor

    def describe(self) -> Sequence[Metric]:
        """Nothing: registering must touch neither database nor store."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Nothing is said of a version without jobs, nor where the database is away."""
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
        except SQLAlchemyError as error:
            log.warning("no drift metrics: %s", type(error).__name__)
            return []
