"""What this machine can do at most, as the native engine's micro-benchmarks measure it.

Peaks are sides of every comparison, measured in turn with the engines: where other work takes cores, it takes them
from both, and the share of the peak holds where the seconds do not.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

MULTIPLY_ADDS, MEMORY = "multiply-adds", "memory"


@dataclass(frozen=True)
class Roofs:
    """Peaks of a number of threads, None where there is nothing to measure them with.

    Attributes:
        multiply_adds_per_s: float32, operands in registers.
        bytes_per_s: of a stream triad over arrays far larger than the caches.
    """

    multiply_adds_per_s: float | None = None
    bytes_per_s: float | None = None


def roof_sides(numbers: Iterable[int], *, quick: bool) -> dict[Hashable, Callable[[], float]]:
    """Sides for `benchmarks.stopwatch.interleaved` that measure the peaks of these numbers of threads."""
    try:
        from nca.engine.native import _core  # exists only where it was built
    except ImportError:
        return {}
    seconds = 0.02 if quick else 0.2
    sides: dict[Hashable, Callable[[], float]] = {}
    for threads in numbers:
        sides[MULTIPLY_ADDS, threads] = partial(_core.fma_peak, threads, seconds)
        sides[MEMORY, threads] = partial(_core.memory_bandwidth, threads, seconds)
    return sides


def roofs_among(taken: Mapping[Hashable, float], threads: int) -> Roofs:
    """The peaks among the medians of the sides."""
    return Roofs(taken.get((MULTIPLY_ADDS, threads)), taken.get((MEMORY, threads)))
