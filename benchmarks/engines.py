"""What is compared: every engine by name, made when it is asked for."""

from __future__ import annotations

from nca.engine import Engine, get_engine
from nca.errors import EngineUnavailableError

PUBLISHED, TORCH, COMPILED = "published", "torch", "torch-compile"
NATIVE = ("native", "native-bf16")
"""Engines of the project's own C++; those that run here are compared."""


def make_engine(name: str, *, threads: int) -> Engine:
    """The engine called ``name`` on ``threads`` cores.

    Imports late, so that a process measures the memory of its own engine only.

    Raises:
        EngineUnavailableError: it does not run here.
    """
    if name == PUBLISHED:
        from benchmarks.published import PublishedEngine

        return PublishedEngine(threads=threads)
    if name == COMPILED:
        from benchmarks.compiled import CompiledEngine

        return CompiledEngine(threads=threads)
    return get_engine(name, threads=threads)


def available(names: tuple[str, ...], *, threads: int) -> dict[str, Engine]:
    """Those of the named engines that run here, in the same order."""
    engines = {}
    for name in names:
        try:
            engines[name] = make_engine(name, threads=threads)
        except EngineUnavailableError:
            continue
    return engines


def fastest(*, threads: int) -> dict[str, Engine]:
    """The native engines; where there is none, torch."""
    return available(NATIVE, threads=threads) or available((TORCH,), threads=threads)
