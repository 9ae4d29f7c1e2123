"""Clocks that jump, all of one machine at once: by an hour, which is longer than every time that is measured."""

from __future__ import annotations

import pytest

from tests.chaos.rig import Rig

HOUR_S = 3600.0


class TestJump:
    @pytest.mark.parametrize("seconds", [HOUR_S, -HOUR_S], ids=["forward", "back"])
    def test_while_a_job_runs_and_others_wait(self, rig: Rig, seconds: float) -> None:
        with rig.held("segment") as held:
            jobs = [rig.client.submit(seed) for seed in range(3)]
            rig.note(f"clock jumps {'forward' if seconds > 0 else 'back'}")
            rig.turn_clocks(seconds)
        assert {rig.client.finished(one)["state"] for one in (held.job_id, *jobs)} == {"succeeded"}
        rig.settle()

    def test_back_after_a_worker_has_died(self, rig: Rig) -> None:
        with rig.held("segment") as held:
            rig.note("clock jumps back, a worker dead")
            rig.fleet.kill_pool(rig.owner_of(held.pid))
            rig.turn_clocks(-HOUR_S)
        assert rig.client.finished(held.job_id)["attempt"] == 2
        rig.settle()
