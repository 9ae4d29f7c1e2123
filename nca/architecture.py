"""The shape of an M3D-NCA as data: what a manifest stores and every engine reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from nca.errors import ImageTooSmallError, InvalidArchitectureError

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Level:
    """One level of the cascade, coarsest first.

    Attributes:
        kernel: odd edge length of the depthwise convolution in voxels.
        steps: how often the cells are updated on this level.
        scale: how many times coarser this level is than the next finer one, per axis (x, y, z);
            (1, 1, 1) on the finest level, which is the scan's own grid.
    """

    kernel: int
    steps: int
    scale: Shape = (1, 1, 1)


@dataclass(frozen=True)
class Architecture:
    """An M3D-NCA (seed, section 2): ``levels`` coarsest first, each with its own weights.

    Channel 0 .. ``inputs`` - 1 of the state hold the image and never change; the next ``outputs`` channels
    are the logits of the segments; the others are hidden memory.
    """

    levels: tuple[Level, ...]
    channels: int = 16
    hidden: int = 64
    inputs: int = 1
    outputs: int = 1
    fire_rate: float = 0.5

    def __post_init__(self) -> None:
        if not self.levels or self.levels[-1].scale != (1, 1, 1):
            raise InvalidArchitectureError("the finest level has scale (1, 1, 1)")
        if any(level.kernel < 3 or level.kernel % 2 == 0 or level.steps < 1 for level in self.levels):
            raise InvalidArchitectureError("kernels are odd and at least 3, steps at least 1")
        if any(min(level.scale) < 1 for level in self.levels):
            raise InvalidArchitectureError("a level is never finer than the one after it")
        if self.inputs < 1 or self.outputs < 1 or self.inputs + self.outputs > self.channels:
            raise InvalidArchitectureError("the state needs a channel for every input and every output")
        if not 0.0 < self.fire_rate <= 1.0:
            raise InvalidArchitectureError("the fire rate is in (0, 1]")

    @property
    def total_steps(self) -> int:
        """Cell updates of one member, over all levels."""
        return sum(level.steps for level in self.levels)

    def shapes(self, image: Sequence[int]) -> tuple[Shape, ...]:
        """Grid of every level, coarsest first, for an image of (x, y, z) voxels.

        Raises:
            ImageTooSmallError: a level has an axis not longer than half its kernel, which cannot be reflected.
        """
        x, y, z = image
        grids: list[Shape] = [(x, y, z)]
        for level in reversed(self.levels[:-1]):
            x, y, z = (ceil(n / s) for n, s in zip(grids[0], level.scale, strict=True))
            grids.insert(0, (x, y, z))
        for level, grid in zip(self.levels, grids, strict=True):
            if min(grid) <= (level.kernel - 1) // 2:
                raise ImageTooSmallError(
                    f"{tuple(image)} voxels leave {grid} on a level whose kernel is {level.kernel}; "
                    f"every axis there must be longer than {(level.kernel - 1) // 2}"
                )
        return tuple(grids)

    def parameter_count(self) -> int:
        """Learned numbers over all levels (BatchNorm statistics are not learned)."""
        c, h = self.channels, self.hidden
        dense = (2 * c * h + h) + 2 * h + h * c  # dense with bias, BatchNorm's scale and shift, dense without bias
        return sum(c * level.kernel**3 + c + dense for level in self.levels)


def default_steps(grid: Sequence[int], kernel: int) -> int:
    """Steps that let information cross the grid once: max(w, h, d) / ((k - 1) / 2) (seed, section 2.2)."""
    return ceil(max(grid) / ((kernel - 1) // 2))
