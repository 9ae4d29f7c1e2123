"""The metrics, the alerts and the dashboards that ship, with a real Prometheus at two gateways and a worker."""

from __future__ import annotations

import math
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from PIL import Image
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from benchmarks.grafana import draw_dashboard
from benchmarks.prometheus import (
    DASHBOARDS,
    Prometheus,
    PrometheusMissingError,
    concrete,
    panels,
    running_prometheus,
)
from model_store.drift import JOBS_MIN
from model_store.manifest import Manifest
from model_store.reference import Reference
from model_store.registry import CANDIDATE, PRODUCTION, Registry

LONG_S = 60.0
OPERATIONS = Path(__file__).resolve().parents[2] / "docs" / "operations.md"
OPENMETRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}


@dataclass
class Monitored:
    """A service of two gateways, and what watches it."""

    stack: Any
    second: str
    prometheus: Prometheus

    def until(self, wanted: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + LONG_S
        while not wanted():
            assert time.monotonic() < deadline, what
            time.sleep(0.1)

    def shows(self, expression: str) -> bool:
        """Whether there is a figure, and it is not 0 nor undefined."""
        return any(value and math.isfinite(value) for value in self.prometheus.values(expression))

    def drive(self, scan: Path) -> None:
        """One of each: accepted, flagged, urgent, unreadable, a problem at either gateway, a webhook nobody takes."""
        options = [{}, {"priority": "urgent", "min_dice": "0.99"}, {"webhook": "http://127.0.0.1:9/hook"}]
        locations = [self.stack.submit(scan, **one) for one in options]
        answer = self.stack.client.post("/segment", files={"scan": b"no scan"}, data={"model": "tiny"})
        for location in (*locations, answer.headers["location"]):
            self.stack.finished(location)
        httpx.get(f"{self.second}/jobs/{'0' * 32}")
        self.stack.client.get("/nowhere")


@contextmanager
def another_gateway(stack: Any) -> Iterator[str]:
    """A gateway beside the one of the stack; its address."""
    environment = psutil.Process(stack.pid("gateway")).environ()
    with socket.create_server(("127.0.0.1", 0)) as listener, (stack.data / "second.log").open("w") as log:
        command = [sys.executable, "-m", "ncagate.cli", "gateway", "--fd", str(listener.fileno())]
        with subprocess.Popen(command, env=environment, pass_fds=[listener.fileno()], stderr=log) as process:
            try:
                url = f"http://127.0.0.1:{listener.getsockname()[1]}"
                assert httpx.get(f"{url}/livez", timeout=LONG_S).status_code == 200
                yield url
            finally:
                process.send_signal(signal.SIGTERM)


@pytest.fixture(scope="module")
def monitored(
    served: Callable[..., AbstractContextManager[Any]],
    publish_tiny: Callable[..., Manifest],
    tmp_path_factory: pytest.TempPathFactory,
    scan: Path,
) -> Iterator[Monitored]:
    """It has been driven twice, so that every figure has risen under Prometheus' eyes; a candidate has been tried."""
    folder = tmp_path_factory.mktemp("monitoring")
    secret = folder / "secret"
    secret.write_text("whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    settings = {"NCAGATE_RECONCILE_S": "0.1", "NCAGATE_WEBHOOK_HOSTS": "127.0.0.1:9", "NCAGATE_SHADOW_SHARE": "1"}
    data = folder / "data"
    numbers = range(20)
    reference = Reference(tuple(map(str, numbers)), {"nqm": tuple(number / 100 for number in numbers)})
    publish_tiny(data / "models", reference=reference)
    publish_tiny(data / "models", version="2.0.0", seed=1)
    registry = Registry(data / "models", shipped=None)
    registry.set_alias("tiny", PRODUCTION, "1.0.0")
    registry.set_alias("tiny", CANDIDATE, "2.0.0")
    with served(data, **settings, NCAGATE_WEBHOOK_SECRET_FILE=str(secret)) as stack, another_gateway(stack) as second:
        targets = [stack.status()["url"].removeprefix("http://"), second.removeprefix("http://")]
        try:
            with running_prometheus(folder / "prometheus", targets) as prometheus:
                watched = Monitored(stack, second, prometheus)
                for _ in range(2):
                    before = sum(prometheus.values("max(ncagate_attempts_total)"))
                    watched.drive(scan)
                    rise = f"max(ncagate_attempts_total) >= {before + 4}"
                    watched.until(lambda rise=rise: watched.shows(rise), "what was done is not shown")  # type: ignore[misc]
                for location in [stack.submit(scan) for _ in range(JOBS_MIN)]:
                    stack.finished(location)
                watched.until(lambda: watched.shows("ncagate_drift_ks"), "no drift is told")
                watched.until(lambda: watched.shows("ncagate_shadow_dice"), "no candidate was tried")
                yield watched
        except PrometheusMissingError as error:
            if os.environ.get("CI") == "true":
                raise
            pytest.skip(str(error))


class TestTable:
    def test_is_what_a_gateway_exports(self, monitored: Monitored) -> None:
        exported = {}
        for family in text_string_to_metric_families(
            httpx.get(f"{monitored.second}/metrics", headers=OPENMETRICS).text
        ):
            labels = {name for sample in family.samples for name in sample.labels} - {"le"}
            name = family.name + {"counter": "_total", "info": "_info"}.get(family.type, "")
            exported[name] = (family.type, labels, family.documentation)
        rows = re.findall(
            r"^\| `(ncagate_\w+)` \| (\w+) \| (.*?) ?\| (.*?) ?\| (.+) \|$", OPERATIONS.read_text(), re.MULTILINE
        )
        assert {name: (kind, {*re.findall(r"\w+", labels)}, text) for name, kind, labels, _, text in rows} == exported
        for name, _, _, unit, _ in rows:
            assert unit in ("seconds", "bytes", ""), name
            named = re.fullmatch(r"ncagate_.*?(seconds|bytes)?(_total)?", name)
            assert named is not None
            assert (named[1] or "") == unit, name


class TestSeveralGateways:
    def test_what_the_database_counts_is_the_same_from_each(self, monitored: Monitored) -> None:
        for name in ("ncagate_jobs_total", "ncagate_verdicts_total", "ncagate_queue_wait_seconds_count"):
            one, other, number = (f"{what} without (instance) ({name})" for what in ("max", "min", "count"))
            same = f"{one} == {other} and {number} == 2"

            def all_the_same(one: str = one, same: str = same) -> bool:
                return len(monitored.prometheus.query(same)) == len(monitored.prometheus.query(one)) > 0

            monitored.until(all_the_same, name)  # they are scraped one after the other

    def test_what_is_recorded_is_counted_once(self, monitored: Monitored) -> None:
        (up,) = monitored.prometheus.values('ncagate:workers{state="up"}')
        assert up == 1.0

    def test_requests_are_each_gateways_own(self, monitored: Monitored) -> None:
        seen = 'sum by (instance) (ncagate_http_problems_total{code="job_not_found"})'
        monitored.until(lambda: sorted(monitored.prometheus.values(seen)) == [0.0, 2.0], "one gateway refused twice")

    def test_a_duration_has_the_identifier_of_a_request_as_exemplar(self, monitored: Monitored) -> None:
        now = time.time()
        name = "ncagate_http_request_duration_seconds_bucket"
        found = monitored.prometheus.exemplars(name, start=now - 600, end=now)
        assert found
        assert all(re.fullmatch("[0-9a-f]{32}", one["request_id"]) for one in found)


class TestDashboards:
    @pytest.mark.parametrize("dashboard", sorted(DASHBOARDS.glob("*.json")), ids=lambda path: path.stem)
    def test_every_panel_has_data(self, monitored: Monitored, dashboard: Path) -> None:
        for panel in panels(dashboard):
            for target in panel["targets"]:
                expression = concrete(target["expr"], interval="2m", window="10m")

                def figures(expression: str = expression) -> bool:
                    return any(math.isfinite(one) for one in monitored.prometheus.values(expression))

                monitored.until(figures, f"{panel['title']}: {expression}")

    def test_one_can_be_drawn(self, monitored: Monitored, tmp_path: Path) -> None:
        (dashboard,) = DASHBOARDS.glob("quality.json")
        now, picture = time.time(), tmp_path / "quality.png"
        draw_dashboard(dashboard, monitored.prometheus, start=now - 30.0, end=now, picture=picture)
        with Image.open(picture) as image:
            width, height = image.size
        assert (width > 1500, height > 800) == (True, True)


class TestAlerts:
    def test_a_deaf_worker_and_a_scan_that_waits_fire_and_clear(self, monitored: Monitored, scan: Path) -> None:
        stack, prometheus = monitored.stack, monitored.prometheus
        wanted = {"NcagateQueueTooOld", "NcagateNoWorker"}
        monitored.until(lambda: not wanted & prometheus.firing(), "they fire before there is a reason")
        worker = psutil.Process(stack.pid("worker"))
        worker.send_signal(signal.SIGSTOP)
        try:
            location = stack.submit(scan, priority="urgent")
            with closing(sqlite3.connect(stack.data / "ncagate.db", timeout=LONG_S)) as database, database:
                database.execute(
                    "UPDATE jobs SET queued_at = queued_at - 600 WHERE state = 'queued'"
                )  # ten minutes pass
            monitored.until(lambda: wanted <= prometheus.firing(), "they do not fire")
        finally:
            worker.send_signal(signal.SIGCONT)
        assert stack.finished(location)["state"] == "succeeded"
        monitored.until(lambda: not wanted & prometheus.firing(), "they do not clear")
