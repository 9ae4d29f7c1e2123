"""Dice-focal loss on logits (seed, section 2.1)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

SMOOTH = 1.0
"""Keeps Dice defined on patches without the structure, in voxels."""


def dice_focal(logits: Tensor, target: Tensor, *, gamma: float) -> Tensor:
    """1 - soft Dice (over batch and voxels, mean over segments) + focal cross-entropy; both (b, segments, x, y, z).

    The focal term (Lin et al., 2017) weighs each voxel's binary cross-entropy by (1 - p_t)^gamma.
    """
    probability = torch.sigmoid(logits)
    axes = (0, 2, 3, 4)
    common = (probability * target).sum(axes)
    total = probability.sum(axes) + target.sum(axes)
    soft_dice = ((2 * common + SMOOTH) / (total + SMOOTH)).mean()
    cross_entropy = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    missed = target + probability - 2 * target * probability  # 1 - p_t
    return 1 - soft_dice + (missed**gamma * cross_entropy).mean()


def hard_dice(logits: Tensor, target: Tensor) -> float:
    """Dice of the thresholded batch, over all its voxels and segments."""
    mask = logits > 0
    total = int(mask.sum()) + int(target.sum())
    return 2 * float((mask * target).sum()) / total if total else 1.0
