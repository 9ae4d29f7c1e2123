"""A worker killed at every named point of its way through a job."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from tests.chaos.points import WORKER_POINTS
from tests.chaos.rig import Layout, Rig

KEPT = ("delivered", "succeeded")
"""A job whose worker dies here has not begun, or is over: it takes one attempt."""


@pytest.fixture(scope="module")
def rig(start: Callable[..., AbstractContextManager[Rig]]) -> Iterator[Rig]:
    with start(Layout()) as running:
        yield running


class TestKill:
    @pytest.mark.parametrize("point", WORKER_POINTS)
    def test_of_the_process_that_runs_jobs(self, rig: Rig, point: str) -> None:
        with rig.held(point) as held:
            rig.note(f"kill -9 of a worker's process at {point}")
            assert rig.fleet.kill_pool("worker-0") == held.pid
        assert rig.client.finished(held.job_id)["attempt"] == (1 if point in KEPT else 2)
        rig.settle()

    @pytest.mark.parametrize("point", ["delivered", "claimed", "segment", "committed", "succeeded"])
    def test_of_the_worker(self, rig: Rig, point: str) -> None:
        with rig.held(point) as held:
            rig.note(f"kill -9 of a worker at {point}")
            rig.fleet.kill("worker-0")
        rig.revive("worker-0")
        assert rig.client.finished(held.job_id)["attempt"] == (1 if point in KEPT else 2)
        rig.settle()
