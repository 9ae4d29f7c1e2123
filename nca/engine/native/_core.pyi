"""The extension module (src/module.cpp). Arrays are C-contiguous float32; a wrong one is a TypeError or ValueError."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

CHUNK_BYTES: int
"""A file of states is mapped in pieces of about this size."""
Grid = tuple[int, int, int]
FloatArray = NDArray[np.float32]

class Team:
    """Threads that share the rows of a plane; the calling thread is one of them."""

    def __init__(self, threads: int) -> None: ...
    @property
    def size(self) -> int: ...

class Workspace:
    """Memory that sweeps reuse."""

class Level:
    """One level's packed weights (`nca.engine.native.packing`) for one instruction set ("": the best)."""

    def __init__(
        self, isa: str, perceive: FloatArray, dense_in: FloatArray, bias: FloatArray, dense_out: FloatArray
    ) -> None: ...

class State:
    """The cells of one level; ``file``: descriptor of an empty file to keep them in, -1 for memory."""

    def __init__(self, grid: Grid, channels: int, reach: int, file: int = -1) -> None: ...
    def seed(self, team: Team, image: FloatArray) -> None: ...
    def refine(self, team: Team, coarse: State, image: FloatArray, scale: Grid) -> None: ...
    def probabilities(self, team: Team, first: int, out: FloatArray) -> None: ...
    def read(self, out: FloatArray) -> None: ...
    def write(self, values: FloatArray) -> None: ...

def sweep(
    team: Team,
    workspace: Workspace,
    level: Level,
    state: State,
    first: int,
    keys: Sequence[tuple[int, int]],
    threshold: int,
    on_step: Callable[[int], object] | None,
) -> None: ...
def plane_bytes(grid: Grid, channels: int, reach: int) -> int: ...
def pending_bytes(grid: Grid, channels: int, reach: int, steps: int) -> int: ...
def isas() -> list[str]: ...
def fma_peak(threads: int, seconds: float) -> float: ...
def memory_bandwidth(threads: int, seconds: float) -> float: ...
