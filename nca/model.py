"""M3D-NCA in torch, written to be read (seed, sections 2.1 and 2.2).

Shapes: b batch, c channels, h hidden, n fired cells; x, y, z voxels of a level's grid. A state is
(b, c, x, y, z) in torch's channels-last memory order, so that a cell's channels lie side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from nca.architecture import Architecture, Level, Shape
from nca.depthwise import perceive
from nca.weights import NORM_EPSILON

Statistics = tuple[Tensor, Tensor]
"""Mean and variance (h,) of the hidden layer before normalisation."""
FireMask = Callable[[int, int], Tensor]
"""(level, step) -> bool (b, x, y, z): which cells update."""
StatisticsHook = Callable[[int, int, Tensor, Tensor], None]
"""Called with (step, cells that fired, mean (h,), population variance (h,)) of each step of a level."""


class NcaLevel(nn.Module):
    """The update rule of one level."""

    def __init__(self, architecture: Architecture, level: Level) -> None:
        super().__init__()
        c, h, k = architecture.channels, architecture.hidden, level.kernel
        self.inputs = architecture.inputs
        bound = k**-1.5  # torch's default for a depthwise kernel of k^3 taps
        self.perceive_weight = nn.Parameter(torch.empty(c, k, k, k).uniform_(-bound, bound))
        self.perceive_bias = nn.Parameter(torch.empty(c).uniform_(-bound, bound))
        self.dense_in = nn.Linear(2 * c, h)
        self.norm_scale = nn.Parameter(torch.ones(h))
        self.norm_shift = nn.Parameter(torch.zeros(h))
        self.dense_out = nn.Linear(h, c, bias=False)
        nn.init.zeros_(self.dense_out.weight)  # a new automaton leaves every cell as it is

    def forward(
        self,
        state: Tensor,
        fired: Tensor,
        *,
        statistics: Statistics | None = None,
        on_statistics: Callable[[int, Tensor, Tensor], None] | None = None,
    ) -> Tensor:
        """One step: ``state`` (b, c, x, y, z), ``fired`` bool (b, x, y, z) -> the next state.

        Only cells that fired are computed. Without ``statistics`` the normalisation uses those of the
        fired cells of this very batch (training); with them the step is local.
        """
        perceived = perceive(state, self.perceive_weight, self.perceive_bias)
        index = fired.flatten().nonzero().squeeze(1)  # (n,)
        cells = [_rows(part).index_select(0, index) for part in (state, perceived)]
        hidden = self.dense_in(torch.cat(cells, dim=1))  # (n, 2c) -> (n, h)
        if on_statistics is not None:
            exact = hidden.detach().double()
            on_statistics(len(exact), exact.mean(0), exact.var(0, unbiased=False))
        mean, variance = statistics or (None, None)
        hidden = functional.batch_norm(
            hidden,
            mean,
            variance,
            self.norm_scale,
            self.norm_shift,
            training=statistics is None,
            eps=NORM_EPSILON,
        )
        update = self.dense_out(functional.relu(hidden))  # (n, c)
        update = functional.pad(update[:, self.inputs :], (self.inputs, 0))  # the image channels stay fixed
        rows = _rows(state).index_add(0, index, update)
        return rows.view(state.movedim(1, -1).shape).movedim(-1, 1)


def _rows(state: Tensor) -> Tensor:
    """(b, c, x, y, z) in channels-last order -> (b * x * y * z, c), one row a cell."""
    return state.movedim(1, -1).reshape(-1, state.shape[1])


class M3dNca(nn.Module):
    """A cascade of levels, coarsest first, each with its own weights."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.levels = nn.ModuleList(NcaLevel(architecture, level) for level in architecture.levels)

    def level(self, index: int) -> NcaLevel:
        """The level's update rule."""
        return cast(NcaLevel, self.levels[index])

    def seed_state(self, image: Tensor) -> Tensor:
        """A new state (b, c, x, y, z) on the grid of ``image`` (b, inputs, x, y, z): the image, and zeros."""
        hidden = self.architecture.channels - self.architecture.inputs
        state = functional.pad(image, (0, 0, 0, 0, 0, 0, 0, hidden))
        return state.contiguous(memory_format=torch.channels_last_3d)

    def run_level(
        self,
        index: int,
        state: Tensor,
        fire_mask: FireMask,
        *,
        statistics: Callable[[int, int], Statistics] | None = None,
        on_statistics: StatisticsHook | None = None,
    ) -> Tensor:
        """All steps of level ``index`` on ``state`` (b, c, x, y, z)."""
        for step in range(self.architecture.levels[index].steps):
            state = self.level(index)(
                state,
                fire_mask(index, step),
                statistics=statistics(index, step) if statistics else None,
                on_statistics=partial(on_statistics, step) if on_statistics else None,
            )
        return state

    def run(self, images: Sequence[Tensor], run_level: Callable[[int, Tensor], Tensor]) -> Tensor:
        """All levels on a whole image, given on every level's grid (`nca.pyramid`): logits (b, outputs, x, y, z).

        ``run_level`` takes a level's index and the state, and returns the state after all steps of the level.
        """
        state = self.seed_state(images[0])
        for index, image in enumerate(images):
            if index:
                state = refine(state, image, self.architecture.levels[index - 1].scale)
            state = run_level(index, state)
        return self.logits(state)

    def logits(self, state: Tensor) -> Tensor:
        """The segments' logits (b, outputs, x, y, z) held by a state."""
        first = self.architecture.inputs
        return state[:, first : first + self.architecture.outputs]


def refine(state: Tensor, image: Tensor, scale: Shape) -> Tensor:
    """Carry a state to the next finer grid: nearest-neighbour upsampling by ``scale``, image channels renewed.

    ``state`` (b, c, x, y, z), ``image`` (b, inputs, X, Y, Z) of the finer grid -> (b, c, X, Y, Z).
    """
    for axis, factor in enumerate(scale, start=2):
        if factor > 1:
            state = state.repeat_interleave(factor, dim=axis)
    x, y, z = image.shape[2:]
    hidden = state[:, image.shape[1] :, :x, :y, :z]
    return torch.cat([image, hidden], dim=1).contiguous(memory_format=torch.channels_last_3d)
