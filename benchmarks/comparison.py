"""One case, every engine: times taken in turn, memory in processes of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from benchmarks.cases import Case, noise
from benchmarks.engines import COMPILED, PUBLISHED
from benchmarks.memory import peak_rss_mb
from benchmarks.roofs import Roofs, roof_sides, roofs_among
from benchmarks.rows import Row, make_row
from benchmarks.stopwatch import interleaved, run_seconds, seconds_of
from benchmarks.weights import prefix
from benchmarks.work import work_of
from nca.architecture import Shape
from nca.engine import Engine

WARM_STEPS = 3
"""Steps of each level before the first round: torch.compile compiles anew where it meets a second size."""
WARM_GRID = (24, 24, 24)
"""Where an engine that compiles nothing warms up."""


def compare(case: Case, engines: Mapping[str, Engine], *, threads: int, quick: bool) -> list[Row]:
    """A row for every engine; the published one is among them."""
    for name, engine in engines.items():
        _warm_up(engine, case, grid=case.plan(name).grid if name == COMPILED else WARM_GRID)
    sides = roof_sides((threads,), quick=quick)
    sides |= {name: partial(seconds_of, engine, case, case.plan(name)) for name, engine in engines.items()}
    taken = interleaved(sides, rounds=case.rounds)
    rows = []
    for name in engines:
        row = _row(case, name, taken[name], roofs=roofs_among(taken, threads), threads=threads)
        memory = peak_rss_mb(case.name, name, threads=threads, quick=quick)
        rows.append(replace(row, ratio_to_published=taken[PUBLISHED] / taken[name], peak_rss_mb=memory))
    return rows


def _row(case: Case, engine: str, seconds: float, *, roofs: Roofs, threads: int) -> Row:
    plan, full = case.plan(engine), case.full
    row = make_row(
        case.name,
        engine,
        work=work_of(case.architecture, case.grid, members=full.members),
        seconds=seconds,
        roofs=roofs,
        members=full.members,
        threads=threads,
        rounds=case.rounds,
        steps=full.steps,
        steps_timed=plan.steps,
        members_timed=plan.members,
        grid=full.grid,
        grid_timed=plan.grid,
    )
    return replace(row, extrapolated=plan != full)


def _warm_up(engine: Engine, case: Case, *, grid: Shape) -> None:
    steps = (WARM_STEPS,) * len(case.architecture.levels)
    run_seconds(engine, prefix(case.network(), steps), noise(grid), members=1)
