"""Timing: sides in turn, medians, and what was not run extrapolated from what was."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Hashable, Mapping
from itertools import accumulate, pairwise
from math import prod
from time import perf_counter
from typing import TypeVar

from benchmarks.cases import Case, Plan, noise
from benchmarks.weights import prefix
from nca.engine import Engine, Progress, ProgressCallback
from nca.network import FloatArray, Network

Side = TypeVar("Side", bound=Hashable)


def interleaved(sides: Mapping[Side, Callable[[], float]], *, rounds: int) -> dict[Side, float]:
    """The median of ``rounds`` measurements of every side, taken in turn (A B A B): a busy machine slows all alike."""
    taken: dict[Side, list[float]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side, measure in sides.items():
            taken[side].append(measure())
    return {side: statistics.median(values) for side, values in taken.items()}


def seconds_of(engine: Engine, case: Case, plan: Plan) -> float:
    """Seconds that the full case takes: ``plan`` is run, and the rest is extrapolated.

    Linear in the steps of each level (timed apart), in members and in voxels. Where ``plan`` is the full case,
    nothing is extrapolated. Fewer steps are for engines that report a member's beginning and each step as it ends.
    """
    marks: dict[tuple[int, int], float] = {}

    def mark(progress: Progress) -> None:
        marks[progress.member, progress.step] = perf_counter()

    network, image = prefix(case.network(), plan.steps), noise(plan.grid)
    seconds = run_seconds(engine, network, image, members=plan.members, on_progress=mark)
    if plan.steps != case.full.steps:
        seconds += _missing_seconds(marks, plan, case.full.steps)
    return seconds * case.full.members / plan.members * prod(case.grid) / prod(plan.grid)


def _missing_seconds(marks: Mapping[tuple[int, int], float], plan: Plan, steps: tuple[int, ...]) -> float:
    """Seconds of the steps that were not run, each level's as long as those that were.

    ``marks`` holds when each (member, steps done) was reported, a member's beginning (0 steps) among them.
    """
    borders = list(accumulate(plan.steps, initial=0))  # steps done where a level ends
    missing = 0.0
    for member in range(plan.members):
        for (first, last), full in zip(pairwise(borders), steps, strict=True):
            level = marks[member, last] - marks[member, first]
            missing += level * (full / (last - first) - 1)
    return missing


def step_seconds(engine: Engine, network: Network, image: FloatArray, *, short: int) -> float:
    """Seconds of one more step of a one-level network, between a run of ``short`` steps and a whole one.

    The difference holds the hot loop alone, without what a run prepares.
    """
    long = network.architecture.total_steps
    whole = run_seconds(engine, network, image, members=1)
    return (whole - run_seconds(engine, prefix(network, (short,)), image, members=1)) / (long - short)


def run_seconds(
    engine: Engine, network: Network, image: FloatArray, *, members: int, on_progress: ProgressCallback | None = None
) -> float:
    """Seconds of a whole run of ``members`` members."""
    start = perf_counter()
    for _ in engine.run(network, image, seed=0, members=range(members), on_progress=on_progress):
        pass
    return perf_counter() - start
