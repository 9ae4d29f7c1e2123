"""The torch engine's own model under `torch.compile`: what a compiler makes of the readable code."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nca.engine import Progress, ProgressCallback
from nca.engine.torch_engine import StoredStatistics, to_model
from nca.model import M3dNca, refine
from nca.network import FloatArray, Network
from nca.pyramid import pyramid
from nca.randomness import Firing


class _CompiledLevel(nn.Module):
    """A level compiled for each grid it meets.

    Grids must be marked static: torch 2.13's inductor fails on a reflected border of symbolic size.
    """

    def __init__(self, level: nn.Module, backend: str) -> None:
        super().__init__()
        self._compiled = torch.compile(level, backend=backend)

    def forward(self, state: Tensor, fired: Tensor, **options: Any) -> Tensor:
        for tensor in (state, fired):
            torch._dynamo.mark_static(tensor)
        result: Tensor = self._compiled(state, fired, **options)
        return result


class CompiledEngine:
    """Runs a network as the torch engine does, its levels compiled. The first steps on a new grid compile."""

    name = "torch-compile"

    def __init__(self, *, threads: int = 0, backend: str = "inductor") -> None:
        self._threads = threads
        self._backend = backend

    def exact(self) -> CompiledEngine:
        """Itself: it computes in float32."""
        return self

    def run(
        self,
        network: Network,
        image: FloatArray,
        *,
        seed: int,
        members: Sequence[int],
        on_progress: ProgressCallback | None = None,
    ) -> Iterator[FloatArray]:
        """Yield each member's probabilities, as `nca.engine.Engine` says."""
        if self._threads:
            torch.set_num_threads(self._threads)
        model, statistics = to_model(network)
        model.levels = nn.ModuleList(_CompiledLevel(level, self._backend) for level in model.levels)
        images = [torch.tensor(one)[None] for one in pyramid(network.architecture, image)]
        total = network.architecture.total_steps
        for position, member in enumerate(members):

            def report(step: int, position: int = position) -> None:
                if on_progress is not None:
                    on_progress(Progress(position, len(members), step, total))

            firing = Firing(seed, (member,), network.architecture.fire_rate)
            yield _run_member(model, statistics, images, firing, on_step=report)


@torch.inference_mode()
def _run_member(
    model: M3dNca,
    statistics: StoredStatistics,
    images: Sequence[Tensor],
    firing: Firing,
    *,
    on_step: Callable[[int], None],
) -> FloatArray:
    """Probabilities (segments, x, y, z); ``on_step`` is told how many steps are done, from 0."""
    architecture, state, done = model.architecture, model.seed_state(images[0]), 0
    on_step(0)
    grids = architecture.shapes(images[-1].shape[2:])
    for index, level in enumerate(architecture.levels):
        if index:
            state = refine(state, images[index], architecture.levels[index - 1].scale)
        for step in range(level.steps):
            fired = torch.from_numpy(firing.mask(index, step, grids[index]))
            state = model.levels[index](state, fired, statistics=statistics(index, step))
            done += 1
            on_step(done)
    probabilities: FloatArray = torch.sigmoid(model.logits(state)[0]).contiguous().numpy()
    return probabilities
