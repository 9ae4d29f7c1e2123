"""A worker killed at every named point of its way through a job."""

from __future__ import annotations

import pytest

from tests.chaos.points import AHEAD, WORKER_POINTS
from tests.chaos.processes import DEATH_S, until
from tests.chaos.rig import Rig

KEPT = ("delivered", "succeeded")
"""A job whose worker dies here has not begun, or is over: it takes one attempt."""


class TestKill:
    @pytest.mark.parametrize("point", WORKER_POINTS)
    def test_of_the_process_that_runs_jobs(self, rig: Rig, point: str) -> None:
        with rig.held(point) as held:
            name = rig.owner_of(held.pid)
            rig.note(f"kill -9 of a worker's process at {point}")
            assert rig.fleet.kill_pool(name) == held.pid
        assert rig.client.finished(held.job_id)["attempt"] == (1 if point in KEPT else 2)
        died = f"pid:{held.pid} exited with 'signal 9 (SIGKILL)'"
        until(lambda: died in rig.log(name), DEATH_S, "the worker has noticed what its process died of")
        rig.settle()

    @pytest.mark.parametrize("point", ["delivered", "segment", "succeeded"])
    def test_of_the_worker(self, rig: Rig, point: str) -> None:
        with rig.held(point) as held:
            name = rig.owner_of(held.pid)
            rig.note(f"kill -9 of a worker at {point}")
            rig.fleet.kill(name)
        rig.revive(name)
        assert rig.client.finished(held.job_id)["attempt"] == (1 if point in KEPT else 2)
        rig.settle()


class TestBatch:
    def test_a_kill_costs_its_jobs_an_attempt_and_loses_none(self, rig: Rig) -> None:
        rig.order("segment", twice=True)  # both workers wait there until a third job is in the queue behind theirs
        rig.order(AHEAD)
        leaders = [rig.client.submit(seed) for seed in range(2)]
        rig.wait_held("segment", count=2)
        following = rig.client.submit(2)
        rig.release("segment")
        (pid,) = rig.wait_held(AHEAD)
        name = rig.owner_of(pid)
        rig.note("kill -9 of a worker's process with two jobs")
        assert rig.fleet.kill_pool(name) == pid
        rig.release(AHEAD)
        assert rig.client.finished(following)["attempt"] >= 2
        for one in leaders:
            rig.client.finished(one)
        rig.settle()
