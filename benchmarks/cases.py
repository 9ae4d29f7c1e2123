"""The scans that are timed, and how much of each every engine is given to do."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.engines import NATIVE
from benchmarks.weights import network_for
from nca.architecture import Architecture, Level, Shape
from nca.network import FloatArray, Network

MEMBERS = 10
"""The default ensemble: what every row is about."""
HIPPOCAMPUS = Architecture((Level(7, 8, (2, 2, 2)), Level(3, 20)))
PROSTATE = Architecture((Level(7, 20, (4, 4, 4)), Level(3, 40)))


@dataclass(frozen=True)
class Plan:
    """What is really run of a case: steps of every level, members, and voxels; the rest is extrapolated."""

    steps: tuple[int, ...]
    members: int
    grid: Shape


@dataclass(frozen=True)
class Case:
    """A scan and its network; ``native`` and ``other`` say what is run of it by either kind of engine."""

    name: str
    grid: Shape
    architecture: Architecture
    native: Plan
    other: Plan
    rounds: int

    @property
    def full(self) -> Plan:
        """The whole of it, ten members."""
        return Plan(tuple(level.steps for level in self.architecture.levels), MEMBERS, self.grid)

    def plan(self, engine: str) -> Plan:
        """What ``engine`` runs."""
        return self.native if engine in NATIVE else self.other

    def network(self) -> Network:
        """Its network."""
        return network_for(self.architecture)


def noise(grid: Shape) -> FloatArray:
    """An image (1, x, y, z) of this grid, mean 0 and deviation 1."""
    return np.random.default_rng(0).standard_normal((1, *grid), dtype=np.float32)


def cases(*, quick: bool) -> tuple[Case, ...]:
    """The cases of a run; ``quick`` ones are tiny and say nothing of speed."""
    return QUICK if quick else FULL


FULL = (
    Case(
        "hippocampus",
        (35, 50, 35),
        HIPPOCAMPUS,
        native=Plan((8, 20), 10, (35, 50, 35)),
        other=Plan((8, 20), 2, (35, 50, 35)),
        rounds=3,
    ),
    Case(
        "prostate",
        (320, 320, 24),
        PROSTATE,
        native=Plan((20, 40), 10, (320, 320, 24)),
        other=Plan((2, 2), 1, (320, 320, 24)),
        rounds=3,
    ),
    Case(
        "256 cube",
        (256, 256, 256),
        PROSTATE,
        native=Plan((20, 40), 1, (256, 256, 256)),
        other=Plan((2, 2), 1, (256, 256, 32)),  # a step of all of it takes 16 GB as published
        rounds=1,
    ),
)
QUICK = (
    Case(
        "hippocampus",
        (12, 14, 12),
        HIPPOCAMPUS,
        native=Plan((8, 20), 10, (12, 14, 12)),
        other=Plan((4, 4), 2, (12, 14, 12)),
        rounds=1,
    ),
    Case(
        "prostate",
        (32, 32, 24),
        PROSTATE,
        native=Plan((20, 40), 2, (32, 32, 24)),
        other=Plan((2, 2), 1, (32, 32, 16)),
        rounds=1,
    ),
)
