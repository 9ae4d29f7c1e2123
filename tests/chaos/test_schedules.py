"""Random faults, a schedule for each seed. `python -m tests.chaos` says which ones."""

from __future__ import annotations

import os

import pytest

from tests.chaos.schedule import on_postgresql, plan, run
from tests.chaos.stage import Stage

SCHEDULES = int(os.environ.get("CHAOS_SCHEDULES", "5"))
SEED = int(os.environ.get("CHAOS_SEED", "0"))


class TestSchedule:
    @pytest.mark.parametrize("seed", range(SEED, SEED + SCHEDULES))
    def test_leaves_no_trace(self, stage: Stage, seed: int) -> None:
        with stage.rig(postgresql=on_postgresql(seed), full=True) as rig:
            findings = run(rig, seed)
        assert not findings, (findings, plan(seed))
