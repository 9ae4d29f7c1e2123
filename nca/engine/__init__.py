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


MEMORY_BUDGET = 512 * 1024 * 1024
"""Bytes that automaton states may take, unless a deployment says otherwise: a quarter of a Raspberry Pi 4 (2 GB)."""


@dataclass(frozen=True)
class EngineStatus:
    """Whether an engine runs here, and what there is to know of it (or why it does not)."""

    name: str
    runs: bool
    detail: str


def engines() -> tuple[EngineStatus, ...]:
    """Every engine, fastest first."""
    return _native_status(), _torch_status()


def choose_engine(name: str = "auto") -> EngineStatus:
    """The engine that serves where ``name`` is asked for; ``auto`` takes the fastest that runs here.

    Raises:
        EngineUnavailableError: no engine of that name runs here.
    """
    statuses = engines()
    if name == "auto":
        return next(one for one in statuses if one.runs)
    chosen = next((one for one in statuses if one.name == name), EngineStatus(name, False, "there is none"))
    if not chosen.runs:
        known = ", ".join(one.name for one in statuses if one.runs)
        raise EngineUnavailableError(f"the engine {name!r} does not run here ({chosen.detail}); there is: {known}")
    return chosen


def get_engine(name: str = "auto", *, threads: int = 0, memory_budget: int = MEMORY_BUDGET) -> Engine:
    """The engine called ``name`` (see `choose_engine`).

    ``threads`` 0 means all cores; ``memory_budget`` is in bytes (the torch engine knows none). Where ``auto`` has
    to do without a faster engine, a warning says so, once.

    Raises:
        EngineUnavailableError: no engine of that name runs here.
    """
    chosen = choose_engine(name)
    if chosen.name == "native":
        from nca.engine.native.engine import NativeEngine  # exists only where it was built

        return NativeEngine(threads=threads, memory_budget=memory_budget)
    if name == "auto":
        for one in engines():
            if not one.runs:
                _warn_once(f"the engine {one.name} does not run here ({one.detail}); {chosen.name} serves")
    from nca.engine.torch_engine import TorchEngine  # imported late: torch costs a second and 200 MB

    return TorchEngine(threads=threads)


@cache
def _warn_once(message: str) -> None:
    log.warning(message)


def _native_status() -> EngineStatus:
    try:
        from nca.engine.native import _core
    except ImportError as error:
        return EngineStatus("native", False, f"not built, or not for this machine: {error}")
    best, *others = _core.isas()
    also = f" (also: {', '.join(others)})" if others else ""
    return EngineStatus("native", True, f"fused steps in C++ for {best}{also}")


def _torch_status() -> EngineStatus:
    return EngineStatus("torch", True, f"the readable reference, torch {version('torch')}; many times slower")
