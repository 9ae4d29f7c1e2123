"""Fire masks from a counter: the same (seed, member, level, step, voxel) fires everywhere, always.

There is no generator state, so the result cannot depend on batch, tile, thread count or the order of members.
A cell's 32-bit draw is two rounds of a finaliser with full avalanche (Ettinger's ``triple32``-family search,
constants of "lowbias32": https://nullprogram.com/blog/2018/07/31/), keyed by 64 bits of (seed, member, level, step).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nca.architecture import Shape

UINT32 = 0xFFFFFFFF
GOLDEN = 0x9E3779B9
"""2^32 divided by the golden ratio: keeps a zero field from leaving the key unmixed."""


def mix(value: int) -> int:
    """One round of the finaliser on a 32-bit integer."""
    value &= UINT32
    value ^= value >> 16
    value = (value * 0x7FEB352D) & UINT32
    value ^= value >> 15
    value = (value * 0x846CA68B) & UINT32
    return value ^ (value >> 16)


def stream_key(*, seed: int, member: int, level: int, step: int) -> tuple[int, int]:
    """The two 32-bit keys of one step's draws. ``seed`` may have up to 64 bits."""
    fields = (seed & UINT32, (seed >> 32) & UINT32, member, level, step)
    low, high = 0, GOLDEN
    for field in fields:
        low = mix((low + GOLDEN) ^ field)
        high = mix(high ^ low)
    return low, high


def _mix_array(values: NDArray[np.uint32]) -> None:
    """`mix` on an array, in place (uint32 arithmetic wraps by definition)."""
    values ^= values >> np.uint32(16)
    values *= np.uint32(0x7FEB352D)
    values ^= values >> np.uint32(15)
    values *= np.uint32(0x846CA68B)
    values ^= values >> np.uint32(16)


def voxel_index(grid: Shape, *, origin: Shape = (0, 0, 0), shape: Shape | None = None) -> NDArray[np.uint32]:
    """C-order index in the whole ``grid`` of every voxel of the box ``origin`` .. ``origin + shape``; (x, y, z)."""
    shape = shape or grid
    x, y, z = (np.arange(o, o + n, dtype=np.uint32) for o, n in zip(origin, shape, strict=True))
    row = x[:, None] * np.uint32(grid[1]) + y[None, :]
    return row[:, :, None] * np.uint32(grid[2]) + z[None, None, :]


def draws(index: NDArray[np.uint32], key: tuple[int, int]) -> NDArray[np.uint32]:
    """One uniform 32-bit draw for every voxel index; same shape as ``index``."""
    values = index ^ np.uint32(key[0])
    _mix_array(values)
    values ^= np.uint32(key[1])
    _mix_array(values)
    return values


def fire_threshold(rate: float) -> int:
    """A cell fires where its draw is below this: ``rate`` in units of 2^-32."""
    return round(rate * 2**32)


def fire_mask(index: NDArray[np.uint32], key: tuple[int, int], rate: float) -> NDArray[np.bool_]:
    """Which cells update: a cell fires where its draw / 2^32 is **below** ``rate``."""
    threshold = fire_threshold(rate)
    if threshold > UINT32:
        return np.ones(index.shape, dtype=np.bool_)
    return draws(index, key) < np.uint32(threshold)


@dataclass(frozen=True)
class Firing:
    """Which cells of a batch update: every sample is a member of its own.

    One idea in two forms: `mask` for torch, and `keys` for what draws for itself.
    """

    seed: int
    members: Sequence[int]
    rate: float

    def keys(self, level: int, steps: int) -> NDArray[np.uint32]:
        """`stream_key` of every step and member: (steps, members, 2)."""
        shape = (steps, len(self.members))
        low, high = (np.full(shape, start, dtype=np.uint32) for start in (0, GOLDEN))
        members, numbers = np.array(self.members, dtype=np.uint32), np.arange(steps, dtype=np.uint32)[:, None]
        for field in (self.seed & UINT32, (self.seed >> 32) & UINT32, members, level, numbers):
            low += np.uint32(GOLDEN)
            low ^= np.asarray(field, dtype=np.uint32)
            _mix_array(low)
            high ^= low
            _mix_array(high)
        return np.stack([low, high], axis=-1)

    def mask(self, level: int, step: int, grid: Shape) -> NDArray[np.bool_]:
        """Bool (members, x, y, z): which cells of ``grid`` update."""
        index = voxel_index(grid)
        keys = (stream_key(seed=self.seed, member=one, level=level, step=step) for one in self.members)
        return np.stack([fire_mask(index, key, self.rate) for key in keys])
