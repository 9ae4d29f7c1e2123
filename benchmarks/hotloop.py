"""Single steps in the hot loop: the interior of large grids, and what the reflected border costs on a small one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from benchmarks.cases import noise
from benchmarks.engines import fastest
from benchmarks.roofs import Roofs, roof_sides, roofs_among
from benchmarks.rows import Row, make_row
from benchmarks.stopwatch import interleaved, step_seconds
from benchmarks.weights import network_for
from benchmarks.work import work_of
from nca.architecture import Architecture, Level, Shape
from nca.engine import Engine

BORDER_GOAL = 2.0
"""A voxel of the small grid takes less than this many times one of the large grid."""
BORDER = "border 18x25x18"


@dataclass(frozen=True)
class Loop:
    """A one-level network on a grid, timed between ``short`` and ``long`` steps."""

    name: str
    kernel: int
    grid: Shape
    short: int
    long: int

    def seconds(self, engine: Engine) -> float:
        """Seconds of one step."""
        network = network_for(Architecture((Level(self.kernel, self.long),)))
        return step_seconds(engine, network, noise(self.grid), short=self.short)

    def row(self, engine: str, seconds: float, *, roofs: Roofs, threads: int) -> Row:
        """The row of one step."""
        work = work_of(self.step, self.grid)
        return make_row(self.name, engine, work=work, seconds=seconds, roofs=roofs, members=1, threads=threads)

    @property
    def step(self) -> Architecture:
        """The network of a single step."""
        return Architecture((Level(self.kernel, 1),))


LOOPS = (
    Loop("interior k=3", 3, (320, 320, 24), short=2, long=12),
    Loop("interior k=7", 7, (80, 80, 24), short=10, long=60),
    Loop(BORDER, 7, (18, 25, 18), short=20, long=520),
)
QUICK_LOOPS = (
    Loop("interior k=3", 3, (24, 24, 12), short=1, long=31),
    Loop("interior k=7", 7, (16, 16, 12), short=1, long=31),
    Loop(BORDER, 7, (10, 12, 10), short=1, long=61),
)


def hot_loop_rows(numbers: Iterable[int], *, quick: bool) -> list[Row]:
    """A row for every loop, fast engine and number of threads; the border's have ``border_ratio``.

    That is the time of a voxel over the time of one in the interior. On one thread it holds the border alone; on more,
    threads also wait for each other at the end of steps that are short.
    """
    loops, rounds = (QUICK_LOOPS, 3) if quick else (LOOPS, 5)
    engines = {(threads, name): one for threads in numbers for name, one in fastest(threads=threads).items()}
    sides = roof_sides(sorted({threads for threads, _ in engines}), quick=quick)
    sides |= {(*key, loop): partial(loop.seconds, engine) for key, engine in engines.items() for loop in loops}
    taken = interleaved(sides, rounds=rounds)
    rows: list[Row] = []
    for threads, name in engines:
        seconds = {loop: taken[threads, name, loop] for loop in loops}
        rows += _rows(seconds, name, roofs=roofs_among(taken, threads), threads=threads)
    return rows


def _rows(seconds: Mapping[Loop, float], engine: str, *, roofs: Roofs, threads: int) -> list[Row]:
    """The rows of one engine; the loops are interior k=3, interior k=7, border."""
    rows = [loop.row(engine, taken, roofs=roofs, threads=threads) for loop, taken in seconds.items()]
    *_, interior, border = rows
    ratio = {"border_ratio": interior.voxel_steps_per_s / border.voxel_steps_per_s}
    return [*rows[:-1], replace(border, further=ratio)]
