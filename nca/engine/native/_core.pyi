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
        self,
        isa: str,
        perceive: FloatArray,
        dense_in: FloatArray,
        bias: FloatArray,
        dense_out: FloatArray,
        low_precision: bool = False,
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
def has_bf16() -> bool: ...
def fma_peak(threads: int, seconds: float) -> float: ...
def memory_bandwidth(threads: int, seconds: float) -> float: ...

Real = np.float32 | np.float64

class Trainer:
    """Threads and memory of training (`nca.engine.native.training`); outlives its tapes."""

    def __init__(self, threads: int) -> None: ...

class Tape32:
    """What backward needs of a level's steps, in float32."""

    def backward(
        self,
        gradient: NDArray[Real],
        perceive: NDArray[np.float64],
        perceive_bias: NDArray[np.float64],
        dense_in: NDArray[np.float64],
        bias: NDArray[np.float64],
        scale: NDArray[np.float64],
        shift: NDArray[np.float64],
        dense_out: NDArray[np.float64],
    ) -> None: ...

class Tape64(Tape32):
    """The same in float64."""

def train_forward(
    trainer: Trainer,
    isa: str,
    perceive: NDArray[Real],
    perceive_bias: NDArray[Real],
    dense_in: NDArray[Real],
    bias: NDArray[Real],
    scale: NDArray[Real],
    shift: NDArray[Real],
    dense_out: NDArray[Real],
    state: NDArray[Real],
    keys: NDArray[np.uint32],
    threshold: int,
    keep: bool,
    out: NDArray[Real],
    mean: NDArray[np.float64],
    variance: NDArray[np.float64],
    count: NDArray[np.int64],
) -> Tape32 | Tape64 | None: ...
