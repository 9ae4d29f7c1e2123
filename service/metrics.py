"""The metrics page: requests as this process saw them, all else as the database, the store and the disk have it."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, disable_created_metrics
from prometheus_client.exposition import choose_encoder

from jobs.drift import DriftMonitor
from jobs.repository import JobRepository
from jobs.shadow import Shadows
from model_store.registry import Registry
from ncagate.settings import Settings
from service.collectors import DatabaseCollector, DiskCollector, ModelCollector
from service.drift_metrics import DriftCollector, ShadowCollector
from service.errors import PROBLEMS

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
"""Upper bounds of the buckets of a request's duration: `Prefer: wait` and large uploads take long by design."""
JOB_FAILED = "job_failed"
"""Label of the problems that are a failed job's own: there are as many codes as ways to be unreadable."""

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series per counter, of use to nobody here


@dataclass
class Answered:
    """What is known of a request in the end. Sizes are bytes of bodies; ``problem`` is a code."""

    method: str
    identifier: str
    route: str = "none"
    status: int = 500
    received: int = 0
    sent: int = 0
    seconds: float = 0.0
    problem: str | None = None


class Metrics:
    """One gateway's metrics. Labels are bounded: route templates, codes, stages, models, workers; never a job."""

    def __init__(self, settings: Settings, repository: JobRepository, registry: Registry) -> None:
        self._collectors = CollectorRegistry()
        self._requests = _Requests(self._collectors)
        build = Info("ncagate_build", "What runs here.", registry=self._collectors)
        build.info({"version": version("ncagate"), "python": platform.python_version()})
        for one in (DatabaseCollector(settings, repository), ModelCollector(registry), DiskCollector(settings)):
            self._collectors.register(one)
        self._collectors.register(DriftCollector(DriftMonitor.of(settings, repository.engine, registry)))
        self._collectors.register(ShadowCollector(Shadows(repository.engine)))

    @contextmanager
    def in_flight(self) -> Iterator[None]:
        """A request is being answered."""
        with self._requests.in_flight.track_inprogress():
            yield

    def answered(self, answered: Answered) -> None:
        """A request was answered."""
        self._requests.add(answered)

    def page(self, accept: str) -> tuple[bytes, str]:
        """The page and its Content-Type, in the exposition format that the scraper accepts."""
        encode, media_type = choose_encoder(accept)
        return encode(self._collectors), media_type


class _Requests:
    """What this process has answered since it started."""

    def __init__(self, registry: CollectorRegistry) -> None:
        route = ["method", "route"]
        self.in_flight = Gauge("ncagate_http_requests_in_flight", "Requests being answered.", registry=registry)
        self._requests = Counter("ncagate_http_requests", "Requests answered.", [*route, "status"], registry=registry)
        self._durations = Histogram(
            "ncagate_http_request_duration_seconds",
            "Time from a request's head to the end of its answer.",
            route,
            buckets=SECONDS,
            registry=registry,
        )
        self._received = Counter("ncagate_http_received_bytes", "Bytes of requests' bodies.", route, registry=registry)
        self._sent = Counter("ncagate_http_sent_bytes", "Bytes of answers' bodies.", route, registry=registry)
        self._problems = Counter(
            "ncagate_http_problems", "Requests answered with a problem.", ["code"], registry=registry
        )
        for code in (*PROBLEMS, JOB_FAILED):  # from 0 on, so that the first one is a rise
            self._problems.labels(code)

    def add(self, one: Answered) -> None:
        """Count a request. Its identifier, which the answer carried, is an exemplar of its duration."""
        self._requests.labels(one.method, one.route, str(one.status)).inc()
        self._durations.labels(one.method, one.route).observe(one.seconds, {"request_id": one.identifier})
        self._received.labels(one.method, one.route).inc(one.received)
        self._sent.labels(one.method, one.route).inc(one.sent)
        if one.problem is not None:
            self._problems.labels(one.problem if one.problem in PROBLEMS else JOB_FAILED).inc()
