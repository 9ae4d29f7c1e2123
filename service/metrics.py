"""The metrics page: requests as this process saw them, jobs as the database counts them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import suppress

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError

from jobs.archive import DeliveryRepository
from jobs.repository import JobRepository
from jobs.state import JobState
from jobs.tally import LATEST, Totals
from model_store.errors import ModelStoreError
from model_store.registry import Registry
from ncagate.bucket import StorageUnavailableError
from pacs.series import SeriesRepository

log = logging.getLogger(__name__)

_COUNTERS = {
    "jobs_total": ("Jobs that reached a final state.", ["outcome"]),
    "verdicts_total": ("Verdicts given.", ["model", "verdict"]),
}
_HISTOGRAMS = {
    "queue_wait_seconds": ("Time from queueing to a worker's claim.", []),
    "stage_duration_seconds": ("Time of each stage of the pipeline.", ["stage"]),
    "nqm": ("NCA quality metric of finished masks.", ["model"]),
    "predicted_dice": ("Dice predicted for finished masks.", ["model"]),
}


class Metrics:
    """One gateway's metrics. Labels are bounded: route templates, stages, models; never an identifier."""

    def __init__(self, repository: JobRepository, registry: Registry) -> None:
        self._collectors = CollectorRegistry()
        self._requests = Counter(
            "ncagate_http_requests",
            "Requests answered.",
            ["method", "route", "status"],
            registry=self._collectors,
        )
        self._durations = Histogram(
            "ncagate_http_request_duration_seconds",
            "Time from a request's head to the end of its answer.",
            ["method", "route"],
            registry=self._collectors,
        )
        self._uploaded = Counter("ncagate_upload_bytes", "Bytes of uploads received.", registry=self._collectors)
        self._collectors.register(_JobCollector(repository))
        self._collectors.register(_ModelCollector(registry))

    def answered(self, *, method: str, route: str, status: int, seconds: float) -> None:
        """A request was answered."""
        self._requests.labels(method, route, str(status)).inc()
        self._durations.labels(method, route).observe(seconds)

    def uploaded(self, size: int) -> None:
        """So many bytes of an upload came."""
        self._uploaded.inc(size)

    def page(self, accept: str) -> tuple[bytes, str]:
        """The page and its Content-Type, in the exposition format that the scraper accepts."""
        encode, media_type = choose_encoder(accept)
        return encode(self._collectors), media_type


class _JobCollector(Collector):
    """Reads the database at every scrape, so that every gateway says the same."""

    def __init__(self, repository: JobRepository) -> None:
        self._repository = repository
        self._series, self._deliveries = SeriesRepository(repository.engine), DeliveryRepository(repository.engine)

    def describe(self) -> Sequence[Metric]:
        """Nothing: registering must not touch the database."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The job metrics; only `ncagate_database_up` where the database is away."""
        try:
            status, totals = self._repository.status(), self._repository.totals()
            series, deliveries = self._series.counts(), self._deliveries.counts()
        except SQLAlchemyError as error:
            log.warning("no job metrics: %s", type(error).__name__)
            yield GaugeMetricFamily("ncagate_database_up", "Whether the database answered this scrape.", 0)
            return
        yield GaugeMetricFamily("ncagate_database_up", "Whether the database answered this scrape.", 1)
        jobs = GaugeMetricFamily("ncagate_jobs_kept", "Jobs that have a row.", labels=["state"])
        for state, count in status.counts.items():
            jobs.add_metric([state.value], count)
        yield jobs
        depth = status.counts[JobState.QUEUED]
        yield GaugeMetricFamily("ncagate_queue_depth", "Jobs waiting for a worker.", depth)
        yield GaugeMetricFamily(
            "ncagate_queue_oldest_age_seconds", "How long the oldest job has waited.", status.oldest_queued_s
        )
        kept = GaugeMetricFamily("ncagate_series_kept", "Series that archives sent lately.", labels=["state"])
        for arrived, count in series.items():
            kept.add_metric([arrived.value], count)
        yield kept
        under_way = GaugeMetricFamily(
            "ncagate_deliveries_kept", "Deliveries of jobs that have a row.", labels=["destination", "state"]
        )
        for (destination, sent), count in deliveries.items():
            under_way.add_metric([destination, sent.value], count)
        yield under_way
        yield from _families(totals)


class _ModelCollector(Collector):
    """Which versions are published, and under which alias."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def describe(self) -> Sequence[Metric]:
        """Nothing: registering must not touch the store."""
        return []

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


def _families(totals: Totals) -> Iterator[Metric]:
    for name, (text, labels) in _COUNTERS.items():
        counter = CounterMetricFamily(f"ncagate_{name}", text, labels=labels)
        for values, total in totals.counters.get(name, {}).items():
            counter.add_metric(list(values), total)
        yield counter
    for name, (text, labels) in _HISTOGRAMS.items():
        histogram = HistogramMetricFamily(f"ncagate_{name}", text, labels=labels)
        for values, one in totals.histograms[name].items():
            histogram.add_metric(list(values), list(one.buckets), one.total)
        yield histogram
    latest = totals.counters.get(LATEST, {}).get((), 0.0)
    yield GaugeMetricFamily(f"ncagate_{LATEST}", "When a job last succeeded; 0: never.", latest)
