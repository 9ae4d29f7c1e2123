"""Random sequences of faults, made from a seed, over a batch of jobs that is being sent meanwhile."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tests.chaos.faults import EVERYWHERE, KINDS, End
from tests.chaos.ledger import Findings
from tests.chaos.processes import POLL_S
from tests.chaos.rig import SEEDS, Rig

FAULTS = 5
JOBS = 8
PAUSE_S = (0.05, 0.5)
"""Between two faults, and between two jobs."""


@dataclass(frozen=True)
class Step:
    """A kind of fault, how long after the one before, and for how long; ``seed`` is for the fault's own choices."""

    kind: str
    pause_s: float
    lasts_s: float
    seed: int


def on_postgresql(seed: int) -> bool:
    """Whether the schedule of this seed is for a stack on PostgreSQL."""
    return seed % 2 == 1


def plan(seed: int) -> list[Step]:
    """The schedule of this seed: always the same."""
    chance = random.Random(seed)
    kinds = [*EVERYWHERE, *(["postgresql"] if on_postgresql(seed) else [])]
    steps = []
    for kind in (chance.choice(kinds) for _ in range(FAULTS)):
        lasts = chance.uniform(*KINDS[kind].lasts)
        steps.append(Step(kind, chance.uniform(*PAUSE_S), lasts, chance.randrange(2**32)))
    return steps


def run(rig: Rig, seed: int) -> Findings:
    """Run the schedule on a stack that is whole and idle, and leave it so; what was wrong after it."""
    with ThreadPoolExecutor(1) as pool:
        batch = pool.submit(_send, rig, random.Random(seed + 1))
        _Course(rig).run(plan(seed))
        batch.result()
    return rig.examine()


def _send(rig: Rig, chance: random.Random) -> None:
    for _ in range(JOBS):
        rig.client.submit(chance.randrange(SEEDS))
        time.sleep(chance.uniform(*PAUSE_S))


class _Course:
    """The faults under way, and those that could not be made when it was their time."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._ends: list[tuple[float, End]] = []

    def run(self, steps: Sequence[Step]) -> None:
        """Make every fault of the schedule; when this returns, all are over."""
        for step in steps:
            self._pass(step.pause_s)
            while (KINDS[step.kind].alone and self._ends) or not self._begin(step):
                self._end_next()  # it needs what another fault has taken away
        while self._ends:
            self._end_next()

    def _begin(self, step: Step) -> bool:
        end = KINDS[step.kind].begin(self._rig, random.Random(step.seed))
        if end is not None:
            self._ends.append((time.monotonic() + step.lasts_s, end))
            self._ends.sort(key=lambda one: one[0])
        return end is not None

    def _pass(self, seconds: float) -> None:
        """Let time pass; what is over by then is ended."""
        until = time.monotonic() + seconds
        while (now := time.monotonic()) < until:
            if self._ends and self._ends[0][0] <= now:
                self._end_next()
            else:
                time.sleep(POLL_S)

    def _end_next(self) -> None:
        """Wait for the end of the fault that is over first."""
        assert self._ends, "a fault cannot be made, though no other is under way"
        at, end = self._ends.pop(0)
        time.sleep(max(at - time.monotonic(), 0.0))
        end()
