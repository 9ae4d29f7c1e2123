"""Engines run the automaton. One interface; what runs it is a deployment's choice.

An engine is given a `Network` (architecture and weights as arrays) and an image, and yields one probability
map per member. Callers never learn which engine it was, except by its name.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import Protocol

from nca.errors import EngineUnavailableError
from nca.network import FloatArray, Network

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """Where a run is: ``member`` of ``members`` (from 0), and cell updates done of this member's ``steps``."""

    member: int
    members: int
    step: int
    steps: int

    @property
    def fraction(self) -> float:
        """Share of the whole run that is done, 0 to 1."""
        return (self.member + self.step / self.steps) / self.members


ProgressCallback = Callable[[Progress], None]
"""Called as steps end, in the caller's thread; raising `nca.errors.CancelledError` stops the run there."""


class Engine(Protocol):
    """What runs a network.

    `run` yields, in the order of ``members``, one float32 array (segments, x, y, z) of sigmoid probabilities
    per member. ``image`` is float32 (inputs, x, y, z), normalised, finite. The same network, image, seed and
    member give the same array whatever the other members, the threads and the tiles.
    """

    name: str

    def exact(self) -> Engine:
        """The engine to use where low precision is not proven: itself, unless it computes in low precision."""
        ...

    def run(
        self,
        network: Network,
        image: FloatArray,
        *,
        seed: int,
        members: Sequence[int],
        on_progress: ProgressCallback | None = None,
    ) -> Iterator[FloatArray]:
        """Yield each member's probabilities; raises `nca.errors.NcaError` for what it cannot run."""
        ...


LOW_PRECISION = "native-bf16"
"""The engine that is only used where a version's manifest proves that its masks agree with float32."""
GPU = "torch-cuda"
"""The torch engine on a GPU."""
MEMORY_BUDGET = 512 * 1024 * 1024
"""Bytes that automaton states may take, unless a deployment says otherwise: a quarter of a Raspberry Pi 4 (2 GB)."""


@dataclass(frozen=True)
class EngineStatus:
    """Whether an engine runs here, and what there is to know of it (or why it does not)."""

    name: str
    runs: bool
    detail: str


def engines() -> tuple[EngineStatus, ...]:
    """Every engine there is; asking whether torch has a GPU may import torch."""
    return tuple(status() for status in _STATUS.values())


def choose_engine(name: str = "auto") -> EngineStatus:
    """The engine that serves where ``name`` is asked for; ``auto`` takes the native one, or else torch.

    Raises:
        EngineUnavailableError: no engine of that name runs here.
    """
    if name == "auto":
        return next(status for status in (_STATUS[one]() for one in AUTOMATIC) if status.runs)
    if name not in _STATUS:
        raise EngineUnavailableError(f"there is no engine {name!r}; there are: auto, {', '.join(_STATUS)}")
    chosen = _STATUS[name]()
    if not chosen.runs:
        raise EngineUnavailableError(f"the engine {name!r} does not run here: {chosen.detail}")
    return chosen


def get_engine(name: str = "auto", *, threads: int = 0, memory_budget: int = MEMORY_BUDGET) -> Engine:
    """The engine called ``name`` (see `choose_engine`).

    ``threads`` 0 means all cores; ``memory_budget`` is in bytes (only the native engine knows one). Where ``auto``
    has to do without the native engine, a warning says so, once.

    Raises:
        EngineUnavailableError: no engine of that name runs here.
    """
    chosen = choose_engine(name)
    if chosen.name in ("native", LOW_PRECISION):
        from nca.engine.native.engine import NativeEngine  # exists only where it was built

        low_precision = chosen.name == LOW_PRECISION
        return NativeEngine(threads=threads, memory_budget=memory_budget, low_precision=low_precision)
    if name == "auto":
        _warn_once(f"the engine native does not run here ({_native_status().detail}); {chosen.name} serves")
    from nca.engine.torch_engine import TorchEngine  # imported late: torch costs a second and 200 MB

    return TorchEngine(threads=threads, device="cuda" if chosen.name == GPU else "cpu")


@cache
def _warn_once(message: str) -> None:
    log.warning(message)


def _native_status() -> EngineStatus:
    try:
        from nca.engine.native import _core
    except ImportError as error:
        return EngineStatus("native", False, f"not built, or not for this machine ({error})")
    best, *others = _core.isas()
    return EngineStatus("native", True, f"C++ for {best}" + (f"; also built: {', '.join(others)}" if others else ""))


def _low_precision_status() -> EngineStatus:
    native = _native_status()
    if not native.runs:
        return EngineStatus(LOW_PRECISION, False, native.detail)
    from nca.engine.native import _core

    if not _core.has_bf16():
        return EngineStatus(LOW_PRECISION, False, "this processor has no bfloat16 instructions")
    return EngineStatus(LOW_PRECISION, True, "bfloat16, for versions whose manifest proves that masks agree")


def _torch_status() -> EngineStatus:
    return EngineStatus("torch", True, f"the readable reference, on the CPU; torch {version('torch')}")


def _gpu_status() -> EngineStatus:
    if version("torch").endswith("+cpu"):  # known without importing it
        return EngineStatus(GPU, False, "this torch was built without CUDA")
    import torch

    if not torch.cuda.is_available():
        return EngineStatus(GPU, False, "torch finds no GPU")
    return EngineStatus(GPU, True, f"the reference on {torch.cuda.get_device_name()}")


_STATUS: dict[str, Callable[[], EngineStatus]] = {
    "native": _native_status,
    LOW_PRECISION: _low_precision_status,
    "torch": _torch_status,
    GPU: _gpu_status,
}
AUTOMATIC = ("native", "torch")
"""What ``auto`` chooses from, the faster first: both compute in float32 on the CPU."""
