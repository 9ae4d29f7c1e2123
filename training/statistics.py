"""Population statistics of the hidden layer, per level and step, collected after training.

Normalising by the batch's own statistics, as training does, would make a result depend on the whole image and on
what else is in the batch. Statistics pooled over the steps lose accuracy; kept per step they lose nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from nca.model import M3dNca, Statistics
from nca.pyramid import pyramid
from nca.randomness import Firing
from training.data import Case
from training.stepping import RunLevel, torch_level


class PooledMoments:
    """Mean and variance of the hidden layer over the cells of many runs, per level and step, in double precision."""

    def __init__(self, model: M3dNca) -> None:
        levels, h = model.architecture.levels, model.architecture.hidden
        self._counts = [[0] * level.steps for level in levels]
        self._means = [torch.zeros(level.steps, h, dtype=torch.float64) for level in levels]
        self._squares = [torch.zeros_like(one) for one in self._means]  # summed squares of the deviations

    def add(self, level: int, step: int, count: int, mean: Tensor, variance: Tensor) -> None:
        """Take in one step of one run: mean and population variance (h,) of ``count`` cells (Chan et al., 1979)."""
        seen = self._counts[level][step]
        if count == 0:
            return
        delta = mean.double() - self._means[level][step]
        self._counts[level][step] = seen + count
        self._means[level][step] += delta * (count / (seen + count))
        self._squares[level][step] += variance.double() * count + delta.square() * (seen * count / (seen + count))

    def statistics(self) -> list[Statistics]:
        """Mean and variance (steps, h) of every level."""
        counts = [torch.tensor(one, dtype=torch.float64)[:, None] for one in self._counts]
        return [
            (mean, squares / count) for mean, squares, count in zip(self._means, self._squares, counts, strict=True)
        ]


def collect(
    model: M3dNca,
    cases: Sequence[Case],
    *,
    seed: int,
    run_level: RunLevel = torch_level,
    on_case: Callable[[], None] = lambda: None,
) -> list[Statistics]:
    """Run every whole scan once, every second one mirrored left to right, and return each level's statistics."""
    moments = PooledMoments(model)
    for position, case in enumerate(cases):
        array = np.flip(case.image, 1) if position % 2 else case.image
        images = pyramid(model.architecture, np.ascontiguousarray(array)[None])
        firing = Firing(seed, (position,), model.architecture.fire_rate)

        def steps(level: int, state: Tensor, firing: Firing = firing) -> Tensor:
            return run_level(model, level, state, firing, partial(moments.add, level))

        with torch.inference_mode():
            model.run([torch.from_numpy(one) for one in images], steps)
        on_case()
    return moments.statistics()
