"""Engines run the automaton. One interface; what runs it is a deployment's choice.

An engine is given a `Network` (architecture and weights as arrays) and an image, and yields one probability
map per member. Callers never learn which engine it was, except by its name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from nca.errors import EngineUnavailableError
from nca.network import FloatArray, Network


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
"""Called after every step; raising `nca.errors.CancelledError` stops the run there."""


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


def get_engine(name: str = "auto", *, threads: int = 0) -> Engine:
    """The engine called ``name``; ``auto`` takes the fastest that runs here. ``threads`` 0 means all cores.

    Raises:
        EngineUnavailableError: no engine of that name runs here.
    """
    if name in ("auto", "torch"):
        from nca.engine.torch_engine import TorchEngine  # imported late: torch costs a second and 200 MB

        return TorchEngine(threads=threads)
    raise EngineUnavailableError(f"no engine {name!r} runs here; there is: {', '.join(ENGINES)}")


ENGINES = ("torch",)
"""Names that `get_engine` knows besides ``auto``."""
