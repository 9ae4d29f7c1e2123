"""Runs every instruction set's kernels that this machine has against numpy: a wheel's test, without torch.

Prints one line per instruction set, the fastest first; fails where one is off.
"""

import sys

import numpy as np
from numpy.typing import NDArray

from nca.engine.native import _core
from nca.randomness import fire_mask, stream_key, voxel_index

STEPS, KERNEL, CHANNELS, HIDDEN = 3, 5, 16, 64
GRID = (7, 12, 9)
KEYS = [stream_key(seed=0, member=0, level=0, step=step) for step in range(STEPS)]
TOLERANCE = 1e-4
Weights = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]
"""perceive, dense_in, bias, dense_out"""


def weights(rng: np.random.Generator) -> Weights:
    """Random ones as `nca.engine.native.packing` lays them out."""

    def draw(*shape: int) -> NDArray[np.float32]:
        return rng.normal(0.0, 0.1, shape).astype(np.float32)

    return (
        draw(KERNEL, KERNEL, KERNEL, CHANNELS),
        draw(STEPS, 2 * CHANNELS, HIDDEN),
        draw(STEPS, HIDDEN),
        draw(HIDDEN, CHANNELS),
    )


def by_numpy(cells: NDArray[np.float64], packed: Weights) -> NDArray[np.float64]:
    """The states (x, y, z, channels) after all steps."""
    perceive, dense_in, bias, dense_out = packed
    for step in range(STEPS):
        around = np.pad(cells, [(KERNEL // 2, KERNEL // 2)] * 3 + [(0, 0)], mode="reflect")
        windows = np.lib.stride_tricks.sliding_window_view(around, (KERNEL,) * 3, axis=(0, 1, 2))
        perceived = np.einsum("xyzcijk,ijkc->xyzc", windows, perceive)
        hidden = np.maximum(np.concatenate([cells, perceived], -1) @ dense_in[step] + bias[step], 0.0)
        fires = fire_mask(voxel_index(GRID), KEYS[step], 0.5)[..., None]
        cells = np.where(fires, cells + hidden @ dense_out, cells)
    return cells


def by_kernels(isa: str, cells: NDArray[np.float64], packed: Weights) -> NDArray[np.float32]:
    """The same by one instruction set's kernels, on two threads."""
    team, state = _core.Team(2), _core.State(GRID, CHANNELS, KERNEL // 2)
    state.write(cells.astype(np.float32))
    _core.sweep(team, _core.Workspace(), _core.Level(isa, *packed), state, 0, KEYS, 2**31, None)
    after = np.empty((*GRID, CHANNELS), np.float32)
    state.read(after)
    return after


def main() -> int:
    """Exit status: how many instruction sets are off."""
    rng = np.random.default_rng(0)
    packed = weights(rng)
    cells = rng.normal(size=(*GRID, CHANNELS)).astype(np.float32).astype(np.float64)
    expected, wrong = by_numpy(cells, packed), 0
    for isa in _core.isas():
        error = float(np.abs(by_kernels(isa, cells, packed) - expected).max())
        wrong += not error <= TOLERANCE
        print(isa, f"off by {error:.1e}")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
