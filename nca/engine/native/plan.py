"""How a run is laid out: members side by side, rows shared out, or states streamed from files, within a budget."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from nca.architecture import Architecture, Shape
from nca.engine.native import _core
from nca.engine.native.packing import CHANNEL_QUANTUM, padded
from nca.errors import ImageTooLargeError

CACHE_BYTES = 8 * 1024 * 1024
"""Planes that the steps of one pass work on at once should stay in the caches."""
STEPS_IN_MEMORY = 4
"""More steps in one pass save nothing once memory is not what limits."""


@dataclass(frozen=True)
class LevelPlan:
    """One level's grid and what it takes.

    Attributes:
        reach: half of the kernel, in voxels.
        steps_per_pass: steps that go over the planes together.
        resident: bytes in memory besides the states: what waits to be written, and mapped planes where streamed.
        states: bytes of the states.
    """

    grid: Shape
    reach: int
    steps_per_pass: int
    resident: int
    states: int


@dataclass(frozen=True)
class Plan:
    """How members are run: ``lanes`` at once, each on ``threads`` threads, states in memory or ``streamed``."""

    levels: tuple[LevelPlan, ...]
    lanes: int
    threads: int
    streamed: bool


def make_plan(
    architecture: Architecture, image: Shape, *, members: int, threads: int, memory_budget: int, folder: Path
) -> Plan:
    """The fastest layout that fits ``memory_budget`` bytes; ``folder`` is where states would be streamed from.

    Members side by side need no agreement between threads, so that comes first; then fewer at once, each with
    its rows shared out; then one, streamed.

    Raises:
        ImageTooLargeError: not even that fits the budget or the disk.
    """
    levels = tuple(_in_memory(architecture, index, grid) for index, grid in enumerate(architecture.shapes(image)))
    lane = sum(level.resident + level.states for level in levels)
    lanes = min(threads, members, memory_budget // lane)
    if lanes:
        return Plan(levels, lanes, threads // lanes, streamed=False)
    levels = tuple(_streamed(architecture, index, level, memory_budget) for index, level in enumerate(levels))
    on_disk = sum(level.states for level in levels)
    free = shutil.disk_usage(folder).free
    if on_disk > free:
        raise ImageTooLargeError(f"{image} voxels need {on_disk} bytes for states in {folder}, which has {free}")
    return Plan(levels, 1, threads, streamed=True)


def _in_memory(architecture: Architecture, index: int, grid: Shape) -> LevelPlan:
    level = architecture.levels[index]
    channels, reach = padded(architecture.channels, CHANNEL_QUANTUM), (level.kernel - 1) // 2
    plane = _core.plane_bytes(grid, channels, reach)
    per_pass = min(level.steps, STEPS_IN_MEMORY, max(1, CACHE_BYTES // (_lag(reach) * plane)))
    pending = _core.pending_bytes(grid, channels, reach, per_pass)
    return LevelPlan(grid, reach, per_pass, pending, plane * grid[0])


def _streamed(architecture: Architecture, index: int, level: LevelPlan, budget: int) -> LevelPlan:
    """As many steps in one pass as fit: each saves reading and writing the whole file once more."""
    channels = padded(architecture.channels, CHANNEL_QUANTUM)
    plane = _core.plane_bytes(level.grid, channels, level.reach)
    pending = _core.pending_bytes(level.grid, channels, level.reach, 1)
    fixed = 2 * level.reach * plane + 2 * min(level.states, max(_core.CHUNK_BYTES, plane))  # mapped in whole pieces
    per_step = _lag(level.reach) * plane + pending
    if fixed + per_step > budget:
        raise ImageTooLargeError(
            f"a grid of {level.grid} needs at least {fixed + per_step} bytes; the memory budget is {budget}"
        )
    steps = min(architecture.levels[index].steps, (budget - fixed) // per_step)
    return LevelPlan(level.grid, level.reach, steps, fixed + steps * per_step, level.states)


def _lag(reach: int) -> int:
    """Planes between a step and the next one of the same pass (src/sweep.cpp)."""
    return 2 * reach + 1
