"""What is read anew at every scrape: the database, so that every gateway says the same; the model store; the disk."""

from __future__ import annotations

import logging
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError

from jobs.archive import DeliveryRepository
from jobs.errors import ATTEMPTS_EXHAUSTED, INTERNAL_ERROR
from jobs.repository import JobRepository, QueueStatus
from jobs.state import JobState
from jobs.tally import LATEST, Cause, Totals
from jobs.workers import WorkerRepository, silent_s
from model_store.errors import ModelStoreError
from model_store.registry import Registry
from ncagate.bucket import StorageUnavailableError
from ncagate.settings import Settings
from pacs.series import SeriesRepository

_Name = TypeVar("_Name", bound=str)

log = logging.getLogger(__name__)

_COUNTERS = {
    "jobs_total": ("Jobs that reached a final state; the code says why they failed.", ["outcome", "code"]),
    "attempts_total": ("Attempts begun at jobs.", []),
    "retries_total": ("Attempts after which the job went back into the queue.", ["cause"]),
    "verdicts_total": ("Verdicts given.", ["model", "version", "verdict"]),
    "flag_reasons_total": ("Flagged masks that had this reason.", ["model", "version", "reason"]),
}
_HISTOGRAMS = {
    "queue_wait_seconds": ("Time from queueing to a worker's claim.", ["priority"]),
    "stage_duration_seconds": ("Time of each stage of the pipeline.", ["stage"]),
    "nqm": ("NCA quality metric of finished masks.", ["model", "version"]),
    "predicted_dice": ("Dice predicted for finished masks.", ["model", "version"]),
}
_FROM_ZERO: Mapping[str, Sequence[tuple[str, ...]]] = {
    "jobs_total": [
        (JobState.SUCCEEDED, ""),
        (JobState.CANCELLED, ""),
        (JobState.FAILED, ATTEMPTS_EXHAUSTED),
        (JobState.FAILED, INTERNAL_ERROR),
    ],
    "attempts_total": [()],
    "retries_total": [(cause,) for cause in Cause],
}
"""Totals that are shown before they have been counted, so that the first one is a rise."""


class _AtScrape(Collector, ABC):
    """Registering it touches nothing."""

    def describe(self) -> Sequence[Metric]:
        """Nothing."""
        return []

    @abstractmethod
    def collect(self) -> Iterator[Metric]:
        """The metrics, now."""


class DatabaseCollector(_AtScrape):
    """Jobs, workers, series and deliveries; only `ncagate_database_up` where the database is away.

    None of it has exemplars: a total in the database is of all jobs, and a job's name is no label.
    """

    def __init__(self, settings: Settings, repository: JobRepository) -> None:
        engine = repository.engine
        self._jobs, self._workers, self._silent_s = repository, WorkerRepository(engine), silent_s(settings)
        self._series, self._deliveries = SeriesRepository(engine), DeliveryRepository(engine)

    def collect(self) -> Iterator[Metric]:
        """All of them, or that the database is away."""
        try:
            families = [
                *_queue(self._jobs.status()),
                *_totals(self._jobs.totals()),
                *_workers(self._workers.silences(), self._silent_s),
                _gauge("series_kept", "Series that archives sent lately.", ["state"], _keyed(self._series.counts())),
                *self._on_their_way(),
            ]
        except SQLAlchemyError as error:
            log.warning("no job metrics: %s", type(error).__name__)
            families = []
        yield _gauge("database_up", "Whether the database answered this scrape.", [], [((), bool(families))])
        yield from families

    def _on_their_way(self) -> Iterator[Metric]:
        labels = ["destination", "state"]
        yield _gauge(
            "deliveries_kept", "Deliveries of jobs that have a row.", labels, self._deliveries.counts().items()
        )
        text = "How long the oldest result has waited for its archive to take it."
        yield _gauge("delivery_oldest_age_seconds", text, labels[:1], _keyed(self._deliveries.oldest_s()))


class ModelCollector(_AtScrape):
    """Which versions are published, and under which alias."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        """1 for every version and alias; a version without one has an empty alias."""
        info = GaugeMetricFamily("ncagate_model_info", "Published versions.", labels=["model", "version", "alias"])
        with suppress(StorageUnavailableError):  # what else there is to say is said
            for name in self._registry.names():
                self._add(info, name)
        yield info

    def _add(self, info: GaugeMetricFamily, name: str) -> None:
        try:
            aliases, versions = self._registry.aliases(name), self._registry.versions(name)
        except ModelStoreError:
            return
        for version in versions:
            for alias in [one for one, meant in aliases.items() if meant == version] or [""]:
                info.add_metric([name, version, alias], 1)


class DiskCollector(_AtScrape):
    """The disk of the data folder."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def collect(self) -> Iterator[Metric]:
        """Its size, what is free, and what has to stay free; nothing where there is no such folder."""
        try:
            usage = shutil.disk_usage(self._settings.data)
        except OSError:
            return
        yield _gauge("disk_size_bytes", "Size of the data folder's disk.", [], [((), usage.total)])
        yield _gauge("disk_free_bytes", "What is free on it.", [], [((), usage.free)])
        yield _gauge(
            "disk_reserve_bytes",
            "Uploads that would leave less free are refused.",
            [],
            [((), self._settings.disk_free_min)],
        )


def _queue(status: QueueStatus) -> Iterator[Metric]:
    waiting, by = status.waiting, ["priority"]
    yield _gauge("jobs_kept", "Jobs that have a row.", ["state"], _keyed(status.counts))
    depths = {priority: one.depth for priority, one in waiting.items()}
    yield _gauge("queue_depth", "Jobs waiting for a worker.", by, _keyed(depths))
    ages = {priority: one.oldest_s for priority, one in waiting.items()}
    yield _gauge("queue_oldest_age_seconds", "How long the oldest job has waited.", by, _keyed(ages))


def _workers(silences: Mapping[str, tuple[bool, float]], silent_s: float) -> Iterator[Metric]:
    up = sum(shown and seconds < silent_s for shown, seconds in silences.values())
    states = {"up": up, "silent": len(silences) - up}
    yield _gauge("workers", "Workers, by whether they lately showed that they work.", ["state"], _keyed(states))
    ages = {name: seconds for name, (_, seconds) in silences.items()}
    text = "How long ago a worker last answered a canary or worked on a job."
    yield _gauge("canary_age_seconds", text, ["worker"], _keyed(ages))


def _totals(totals: Totals) -> Iterator[Metric]:
    for name, (text, labels) in _COUNTERS.items():
        counter = CounterMetricFamily(f"ncagate_{name}", text, labels=labels)
        counted = totals.counters.get(name, {})
        if name == "verdicts_total":
            counted = {(*one[:2], verdict): 0.0 for one in counted for verdict in ("accept", "flag")} | counted
        shown = dict.fromkeys(_FROM_ZERO.get(name, []), 0.0) | counted
        for values, total in shown.items():
            counter.add_metric(list(values), total)
        yield counter
    for name, (text, labels) in _HISTOGRAMS.items():
        histogram = HistogramMetricFamily(f"ncagate_{name}", text, labels=labels)
        for values, one in totals.histograms[name].items():
            histogram.add_metric(list(values), list(one.buckets), one.total)
        yield histogram
    latest = totals.counters.get(LATEST, {}).get((), 0.0)
    yield _gauge(LATEST, "When a job last succeeded; 0: never.", [], [((), latest)])


def _keyed(values: Mapping[_Name, float]) -> Iterator[tuple[tuple[str, ...], float]]:
    return (((name,), value) for name, value in values.items())


def _gauge(name: str, text: str, labels: Sequence[str], values: Iterable[tuple[tuple[str, ...], float]]) -> Metric:
    gauge = GaugeMetricFamily(f"ncagate_{name}", text, labels=labels)
    for one, value in values:
        gauge.add_metric([str(label) for label in one], value)
    return gauge
