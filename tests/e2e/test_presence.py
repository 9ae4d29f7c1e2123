"""Whether a worker works is told by what it does."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

Served = Callable[..., AbstractContextManager[Any]]
LONG_S = 60.0


def workers(stack: Any) -> dict[str, int]:
    page = stack.client.get("/metrics").text
    (family,) = (one for one in text_string_to_metric_families(page) if one.name == "ncagate_workers")
    return {sample.labels["state"]: int(sample.value) for sample in family.samples}


def until(stack: Any, **wanted: int) -> None:
    deadline = time.monotonic() + LONG_S
    while (found := workers(stack)) != wanted:
        assert time.monotonic() < deadline, found
        time.sleep(0.1)


@pytest.fixture(scope="module")
def stack(served: Served) -> Iterator[Any]:
    """A worker of two processes; it is silent after 1.8 s."""
    with served(NCAGATE_WORKERS="2", NCAGATE_RECONCILE_S="0.1") as running:
        until(running, up=1, silent=0)
        yield running
    with closing(sqlite3.connect(running.data / "ncagate.db")) as database:
        left = database.execute("SELECT name FROM workers").fetchall()
    assert len(left) <= 1, "the one that stopped should have signed off"


class TestPresence:
    def test_a_worker_that_is_alive_and_deaf_is_silent_until_it_hears_again(self, stack: Any) -> None:
        worker = psutil.Process(stack.pid("worker"))
        worker.send_signal(signal.SIGSTOP)  # its job processes live on, and hear of nothing
        try:
            until(stack, up=0, silent=1)
            assert len(worker.children()) == 2
        finally:
            worker.send_signal(signal.SIGCONT)
        until(stack, up=1, silent=0)

    def test_one_that_is_busy_for_long_is_not_silent(self, stack: Any, large_scan: Path) -> None:
        locations = [stack.submit(large_scan, model="slow", members="4") for _ in range(2)]
        for location in locations:
            stack.under_way(location)
        time.sleep(2.5)
        until(stack, up=1, silent=0)
        assert all(stack.job(one)["state"] == "running" for one in locations), "it should have been busy all the time"

    def test_one_that_died_has_not_signed_off(self, stack: Any) -> None:
        os.kill(stack.pid("worker"), signal.SIGKILL)
        until(stack, up=1, silent=1)
