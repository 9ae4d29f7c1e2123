"""A candidate that is slow, or whose worker dies or stops, beside real jobs in real processes."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import pytest

from model_store.manifest import Manifest
from model_store.registry import CANDIDATE, PRODUCTION, Registry
from tests.e2e.conftest import SLOW

DEADLINE_S = 60.0
Served = Callable[..., AbstractContextManager[Any]]


def rows(data: Path) -> list[tuple[str, str]]:
    """Job and outcome of every shadow run."""
    with closing(sqlite3.connect(data / "ncagate.db", timeout=30)) as database:
        return database.execute("SELECT job_id, outcome FROM shadows ORDER BY started_at").fetchall()


def until(data: Path, wanted: Callable[[list[tuple[str, str]]], bool]) -> list[tuple[str, str]]:
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        if wanted(found := rows(data)):
            return found
        time.sleep(0.05)
    raise TimeoutError(f"the shadow runs stand at {found}")


@pytest.fixture
def shadowed(served: Served, publish_tiny: Callable[..., Manifest], tmp_path: Path) -> Callable[..., Any]:
    """Starts a service whose candidate takes about a second for a member."""

    def start(**environment: str) -> AbstractContextManager[Any]:
        data = tmp_path / "data"
        publish_tiny(data / "models")
        publish_tiny(data / "models", version="2.0.0", architecture=SLOW, parameters=SLOW.parameter_count())
        registry = Registry(data / "models", shipped=None)
        registry.set_alias("tiny", PRODUCTION, "1.0.0")
        registry.set_alias("tiny", CANDIDATE, "2.0.0")
        return served(data, NCAGATE_SHADOW_SHARE="1", **environment)

    return start


class TestShadow:
    def test_a_job_that_comes_meanwhile_goes_first(self, shadowed: Any, large_scan: Path, scan: Path) -> None:
        with shadowed() as stack:
            first = stack.segment(large_scan, members="30")
            assert first["state"] == "succeeded"
            until(stack.data, lambda found: found == [(first["id"], "started")])
            second = stack.segment(scan, members="1")
            assert second["state"] == "succeeded"
            until(stack.data, lambda found: (second["id"], "compared") in found)
            assert stack.job(f"/jobs/{first['id']}") == first

    def test_a_worker_that_dies_of_it_has_lost_no_job_and_does_not_try_again(
        self, shadowed: Any, large_scan: Path, scan: Path
    ) -> None:
        with shadowed() as stack:
            first = stack.segment(large_scan, members="30")
            until(stack.data, lambda found: found == [(first["id"], "started")])
            os.kill(stack.worker_child().pid, signal.SIGKILL)
            second = stack.segment(scan, members="1")
            assert (second["state"], second["attempt"]) == ("succeeded", 1)
            found = until(stack.data, lambda found: (second["id"], "compared") in found)
            assert found == [(first["id"], "started"), (second["id"], "compared")]
            assert stack.job(f"/jobs/{first['id']}") == first
            (view,) = stack.client.get("/models/tiny/health").json()["shadows"]
            assert (view["version"], view["candidate"], view["jobs"]) == ("1.0.0", "2.0.0", 1)
            assert view["outcomes"] == {"started": 1}

    def test_a_worker_that_stops_drops_it(self, shadowed: Any, large_scan: Path) -> None:
        with shadowed(NCAGATE_SOFT_SHUTDOWN_S="120") as stack:
            first = stack.segment(large_scan, members="50")
            until(stack.data, lambda found: found == [(first["id"], "started")])
            stack.process.terminate()
            assert stack.process.wait(DEADLINE_S) == 0
            assert rows(stack.data) == []
            with closing(sqlite3.connect(stack.data / "ncagate.db")) as database:
                assert database.execute("SELECT state, attempt FROM jobs").fetchall() == [("succeeded", 1)]
