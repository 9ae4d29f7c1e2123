"""Population statistics of the hidden layer, per level and step, collected after training.

Normalising by the batch's own statistics, as training does, would make a result depend on the whole image and on
what else is in the batch. Statistics pooled over the steps lose accuracy; kept per step they lose nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from nca.model import M3dNca, Statistics
from nca.network import FloatArray
from nca.pyramid import pyramid
from nca.randomness import fire_mask, stream_key, voxel_index
from training.data import Case


class RunningMoments:
    """Sums over cells of the hidden layer (n, h), per level and step, in double precision."""

    def __init__(self, model: M3dNca) -> None:
        hidden = model.architecture.hidden
        self._counts = [torch.zeros(level.steps, 1, dtype=torch.float64) for level in model.architecture.levels]
        self._sums = [torch.zeros(level.steps, hidden, dtype=torch.float64) for level in model.architecture.levels]
        self._squares = [torch.zeros_like(one) for one in self._sums]

    def add(self, level: int, step: int, hidden: Tensor) -> None:
        """Take in the hidden layer (n, h) of one step."""
        hidden = hidden.double()
        self._counts[level][step] += len(hidden)
        self._sums[level][step] += hidden.sum(0)
        self._squares[level][step] += hidden.square().sum(0)

    def statistics(self) -> list[Statistics]:
        """Mean and variance (steps, h) of every level."""
        means = [total / count for total, count in zip(self._sums, self._counts, strict=True)]
        return [
            (mean, (squares / count - mean.square()).clamp_min(0.0))
            for mean, squares, count in zip(means, self._squares, self._counts, strict=True)
        ]


def collect(
    model: M3dNca, cases: Sequence[Case], *, seed: int, on_case: Callable[[], None] = lambda: None
) -> list[Statistics]:
    """Run every whole scan once, every second one mirrored left to right, and return each level's statistics."""
    moments = RunningMoments(model)
    for position, case in enumerate(cases):
        array = np.flip(case.image, 0) if position % 2 else case.image
        _run(model, np.ascontiguousarray(array)[None, None], moments, seed=seed, member=position)
        on_case()
    return moments.statistics()


@torch.inference_mode()
def _run(model: M3dNca, image: FloatArray, moments: RunningMoments, *, seed: int, member: int) -> None:
    images = [torch.tensor(one) for one in pyramid(model.architecture, image)]
    grids = model.architecture.shapes(image.shape[2:])

    def fire(level: int, step: int) -> Tensor:
        key = stream_key(seed=seed, member=member, level=level, step=step)
        return torch.from_numpy(fire_mask(voxel_index(grids[level]), key, model.architecture.fire_rate))[None]

    model.run(images, fire, on_hidden=moments.add)
