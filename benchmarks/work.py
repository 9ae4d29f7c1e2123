"""How much there is to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from nca.architecture import Architecture, Shape

BYTES_PER_FLOAT = 4


@dataclass(frozen=True)
class Work:
    """The least that a run has to do.

    Attributes:
        voxel_steps: voxels times steps, over all levels and members.
        multiply_adds: of the cells that fire: k^3 c of perception, 2 c h and h c of the dense layers.
        bytes: every state read once a step, those that fire written once (16 float32 a voxel).
    """

    voxel_steps: int
    multiply_adds: float
    bytes: float

    @property
    def intensity(self) -> float:
        """Floating point operations a byte (a multiply-add is two)."""
        return 2 * self.multiply_adds / self.bytes


def work_of(architecture: Architecture, grid: Shape, *, members: int = 1) -> Work:
    """The work of ``members`` members on an image of ``grid`` voxels."""
    c, h, rate = architecture.channels, architecture.hidden, architecture.fire_rate
    steps, multiply_adds = 0, 0.0
    for level, level_grid in zip(architecture.levels, architecture.shapes(grid), strict=True):
        level_steps = prod(level_grid) * level.steps
        steps += level_steps
        multiply_adds += level_steps * rate * (level.kernel**3 * c + 2 * c * h + h * c)
    moved = steps * c * BYTES_PER_FLOAT * (1 + rate)
    return Work(members * steps, members * multiply_adds, members * moved)


def total(works: Sequence[Work]) -> Work:
    """All of them together."""
    return Work(
        sum(work.voxel_steps for work in works),
        sum(work.multiply_adds for work in works),
        sum(work.bytes for work in works),
    )
