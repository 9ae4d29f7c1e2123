"""What runs a level's steps in training: the native engine where it was built, else torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from nca.engine import choose_engine
from nca.model import M3dNca, StatisticsHook
from nca.randomness import Firing


class RunLevel(Protocol):
    """Runs all steps of one level on a state (b, c, x, y, z), normalising by the batch's own statistics."""

    def __call__(
        self, model: M3dNca, index: int, state: Tensor, firing: Firing, on_statistics: StatisticsHook | None = None
    ) -> Tensor:
        """The state after the last step; differentiable."""
        ...


@dataclass(frozen=True)
class Stepping:
    """How levels are run, and how many threads torch gets for what is left to it."""

    run_level: RunLevel
    torch_threads: int

    @contextmanager
    def torch_limited(self) -> Iterator[None]:
        """Within it torch uses `torch_threads`."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.torch_threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def choose_stepping(engine: str = "auto") -> Stepping:
    """The stepping of the engine called ``engine``, on as many threads as torch has now.

    Beside the native engine torch gets one thread: the loss and the optimiser are too small to share out, and
    OpenMP's threads would keep the cores busy waiting for more.

    Raises:
        EngineUnavailableError: no engine of that name runs here.
    """
    threads = torch.get_num_threads()
    if choose_engine(engine).name == "native":
        return Stepping(partial(native_level, threads=threads), torch_threads=1)
    return Stepping(torch_level, torch_threads=threads)


def torch_level(
    model: M3dNca, index: int, state: Tensor, firing: Firing, on_statistics: StatisticsHook | None = None
) -> Tensor:
    """Step by step in torch, as `nca.model` reads; see `RunLevel`."""
    x, y, z = state.shape[2:]

    def fire(level: int, step: int) -> Tensor:
        return torch.from_numpy(firing.mask(level, step, (x, y, z)))

    return model.run_level(index, state, fire, on_statistics=on_statistics)


def native_level(
    model: M3dNca,
    index: int,
    state: Tensor,
    firing: Firing,
    on_statistics: StatisticsHook | None = None,
    *,
    threads: int,
) -> Tensor:
    """All steps in one C++ call; see `RunLevel`."""
    from nca.engine.native.training import run_level  # exists only where it was built

    keys = firing.keys(index, model.architecture.levels[index].steps)
    level = model.level(index)
    return run_level(level, state, keys, fire_rate=firing.rate, threads=threads, on_statistics=on_statistics)
