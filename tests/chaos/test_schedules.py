"""Random faults, one schedule per seed: which ones is said by `python -m tests.chaos`, or a few by chance of no one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

import pytest

from tests.chaos.disk import small_disk
from tests.chaos.rig import Layout, Rig
from tests.chaos.schedule import on_postgresql, plan, run

SCHEDULES = int(os.environ.get("CHAOS_SCHEDULES", "5"))
SEED = int(os.environ.get("CHAOS_SEED", "0"))
SEEDS = sorted(range(SEED, SEED + SCHEDULES), key=on_postgresql)
"""Those of one database after those of the other: two stacks are started in all."""


class Stage:
    """A stack on a small disk, kept from schedule to schedule, and replaced by a new one after one that went wrong."""

    def __init__(self, start: Callable[..., AbstractContextManager[Rig]], factory: pytest.TempPathFactory) -> None:
        self._start, self._factory = start, factory
        self._exits = ExitStack()
        self._postgresql = False
        self._rig: Rig | None = None

    @contextmanager
    def rig(self, *, postgresql: bool) -> Iterator[Rig]:
        """A stack that is whole and idle."""
        if self._rig is None or self._postgresql != postgresql:
            self.clear()
            data = self._exits.enter_context(small_disk(self._factory.mktemp("disk")))
            layout = Layout(gateways=2, workers=2, postgresql=postgresql)
            self._rig = self._exits.enter_context(self._start(layout, data=data))
            self._postgresql = postgresql
        try:
            yield self._rig
        except BaseException:
            self.clear()
            raise

    def clear(self) -> None:
        """Stop it."""
        self._rig = None
        self._exits.close()


@pytest.fixture(scope="module")
def stage(
    start: Callable[..., AbstractContextManager[Rig]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    one = Stage(start, tmp_path_factory)
    yield one
    one.clear()


class TestSchedule:
    @pytest.mark.parametrize("seed", SEEDS)
    def test_leaves_no_trace(self, stage: Stage, seed: int) -> None:
        with stage.rig(postgresql=on_postgresql(seed)) as rig:
            findings = run(rig, seed)
            assert not findings, (findings, plan(seed))
