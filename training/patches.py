"""The cascade of patches: each finer level is trained on a random part of what the level before covered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nca.architecture import Shape
from nca.model import M3dNca, refine
from nca.network import FloatArray
from nca.pyramid import pyramid
from nca.randomness import Firing
from training.stepping import RunLevel, torch_level


@dataclass(frozen=True)
class LevelOutput:
    """Logits and target (b, segments, x, y, z) of one level's patch."""

    logits: Tensor
    target: Tensor


def run_patches(
    model: M3dNca,
    image: FloatArray,
    target: FloatArray,
    *,
    patch: Shape,
    fire_seed: int,
    rng: np.random.Generator,
    run_level: RunLevel = torch_level,
) -> list[LevelOutput]:
    """Run all levels on a batch of crops (seed, section 2.1): what every level says, coarsest first.

    ``image`` (b, inputs, x, y, z) and ``target`` (b, segments, x, y, z) are on the finest grid. The coarsest level
    sees the whole crop; each finer one a random patch of the level before, every sample its own, of at most
    ``patch`` voxels (a multiple of the level's scale). Targets are averaged onto each level's grid.
    """
    images, targets = (_levels(model, whole) for whole in (image, target))
    firing = Firing(fire_seed, range(len(image)), model.architecture.fire_rate)  # a sample is a member of its own
    state = run_level(model, 0, model.seed_state(images[0]), firing)
    outputs = [LevelOutput(model.logits(state), targets[0])]
    corners = np.zeros((len(image), 3), dtype=int)  # of each sample's patch, on the current level's grid
    for index in range(1, len(images)):
        scale = model.architecture.levels[index - 1].scale
        covered = state.shape[2:]
        size = [min(n, c * s) for n, c, s in zip(patch, covered, scale, strict=True)]
        inner = [n // s for n, s in zip(size, scale, strict=True)]
        local = rng.integers(0, np.subtract(covered, inner).astype(int) + 1, size=corners.shape)
        corners = (corners + local) * scale
        patch_image = _cut(images[index], corners, size)
        state = refine(_cut(state, local, inner), patch_image, scale)
        state = run_level(model, index, state, firing)
        outputs.append(LevelOutput(model.logits(state), _cut(targets[index], corners, size)))
    return outputs


def _levels(model: M3dNca, whole: FloatArray) -> list[Tensor]:
    return [torch.from_numpy(one) for one in pyramid(model.architecture, whole)]


def _cut(batch: Tensor, corners: np.ndarray, size: Sequence[int]) -> Tensor:
    """Box of ``size`` at each sample's own corner (b, 3), from (b, ., x, y, z)."""
    (sx, sy, sz) = size
    return torch.stack(
        [one[:, x : x + sx, y : y + sy, z : z + sz] for one, (x, y, z) in zip(batch, corners.tolist(), strict=True)]
    )
