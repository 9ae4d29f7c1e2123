"""Time against voxels times steps times members: how straight the line is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from scipy.stats import linregress

from benchmarks.cases import HIPPOCAMPUS, noise
from benchmarks.engines import fastest
from benchmarks.roofs import Roofs, roof_sides, roofs_among
from benchmarks.rows import Row, make_row
from benchmarks.stopwatch import interleaved, run_seconds
from benchmarks.weights import network_for
from benchmarks.work import Work, total, work_of
from nca.architecture import Architecture, Level, Shape
from nca.engine import Engine

GRID = (35, 50, 35)
SCALING = "scaling"
"""What the cases of this module's rows start with."""
SCALING_FIT = f"{SCALING} fit"


@dataclass(frozen=True)
class Point:
    """One run: the hippocampus network on a grid, with this many steps on the finest level, and members."""

    series: str
    grid: Shape = GRID
    steps: int = 20
    members: int = 1

    @property
    def architecture(self) -> Architecture:
        """Its network's shape."""
        coarse = HIPPOCAMPUS.levels[0]
        return replace(HIPPOCAMPUS, levels=(coarse, Level(3, self.steps)))

    @property
    def work(self) -> Work:
        """What it does."""
        return work_of(self.architecture, self.grid, members=self.members)

    def seconds(self, engine: Engine) -> float:
        """Seconds of the whole run."""
        return run_seconds(engine, network_for(self.architecture), noise(self.grid), members=self.members)


POINTS = (
    *(Point("voxels", grid=(n, n, n)) for n in (24, 32, 48, 64, 96)),
    *(Point("members", members=n) for n in (1, 2, 5, 10, 20)),
    *(Point("steps", steps=n) for n in (10, 20, 40, 80, 160)),
)
QUICK_POINTS = (
    *(Point("voxels", grid=(n, n, n), steps=4) for n in (8, 12, 16)),
    *(Point("members", grid=(8, 8, 8), steps=4, members=n) for n in (1, 2)),
)


def scaling_rows(numbers: Iterable[int], *, quick: bool) -> list[Row]:
    """Every point of the fastest engine on each of ``numbers`` threads, and for each a row with the fit."""
    points, rounds = (QUICK_POINTS, 1) if quick else (POINTS, 3)
    engines = {threads: next(iter(fastest(threads=threads).values())) for threads in numbers}
    sides = roof_sides(engines, quick=quick)
    sides |= {(n, point): partial(point.seconds, engine) for n, engine in engines.items() for point in points}
    taken = interleaved(sides, rounds=rounds)
    rows = []
    for threads, engine in engines.items():
        series = _Series(engine.name, threads, roofs_among(taken, threads))
        seconds = {point: taken[threads, point] for point in points}
        rows += [*map(series.row, seconds, seconds.values()), series.fit_row(seconds)]
    return rows


def fit(work: Sequence[float], ms: Sequence[float]) -> dict[str, float]:
    """Least squares: the line ms = intercept + slope * work with its R^2, and the exponent of ms ~ work^exponent."""
    line = linregress(work, ms)
    power = linregress(np.log(work), np.log(ms))
    return {
        "ms_per_million_voxel_steps": float(line.slope) * 1e6,
        "intercept_ms": float(line.intercept),
        "r_squared": float(line.rvalue) ** 2,
        "exponent": float(power.slope),
        "exponent_r_squared": float(power.rvalue) ** 2,
    }


@dataclass(frozen=True)
class _Series:
    """What all rows of a number of threads share."""

    engine: str
    threads: int
    roofs: Roofs

    def row(self, point: Point, seconds: float) -> Row:
        """The row of one point."""
        case, steps = f"{SCALING} {point.series}", [level.steps for level in point.architecture.levels]
        further = {"grid": point.grid, "steps": steps, "voxel_steps": point.work.voxel_steps}
        return self._row(case, point.work, seconds, members=point.members, further=further)

    def fit_row(self, seconds: Mapping[Point, float]) -> Row:
        """The fit, over a row that sums all points."""
        works = [point.work for point in seconds]
        fitted = fit([work.voxel_steps for work in works], [taken * 1000 for taken in seconds.values()])
        members = sum(point.members for point in seconds)
        return self._row(SCALING_FIT, total(works), sum(seconds.values()), members=members, further=fitted)

    def _row(self, case: str, work: Work, seconds: float, *, members: int, further: Mapping[str, Any]) -> Row:
        about = {"members": members, "threads": self.threads, **further}
        return make_row(case, self.engine, work=work, seconds=seconds, roofs=self.roofs, **about)
