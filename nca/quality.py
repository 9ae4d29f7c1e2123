"""Measures of a mask: against the truth, Dice; without it, NQM and its relatives."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

SLAB = 1 << 17
"""Voxels worked on at once, a multiple of 8: a megabyte in double precision, so that a large scan needs no more."""
TINY = 1e-12


def nqm(mean: NDArray[np.floating], deviation: NDArray[np.floating]) -> float | None:
    """NCA quality metric (seed, equation 1): summed standard deviation over summed mean, of the probabilities.

    Both arrays have the same shape, in voxels of the model's grid. None where the mean sums to zero: the ratio
    is then undefined, and such a mask is flagged with its own reason.
    """
    total = float(np.sum(mean, dtype=np.float64))
    return float(np.sum(deviation, dtype=np.float64)) / total if total > 0.0 else None


def mask_nqm(packed_masks: Sequence[NDArray[np.uint8]]) -> float | None:
    """`nqm` of binarised masks, bit-packed (`numpy.packbits`, zero-padded); None where all are empty."""
    deviation, mean = 0.0, 0.0
    for start in range(0, packed_masks[0].size, SLAB // 8):
        slabs = (np.unpackbits(mask[start : start + SLAB // 8]) for mask in packed_masks)
        share = sum(slab.astype(np.float64) for slab in slabs) / len(packed_masks)
        mean += float(np.sum(share))
        deviation += float(np.sum(np.sqrt(share * (1 - share))))
    return deviation / mean if mean else None


def entropy(mean: NDArray[np.floating]) -> float | None:
    """Summed binary entropy (nats) of the mean probability over its sum, comparable with `nqm`; None as there."""
    total, summed = 0.0, 0.0
    flat = mean.reshape(-1)
    for start in range(0, flat.size, SLAB):
        p = flat[start : start + SLAB].astype(np.float64)
        total += float(np.sum(p))
        summed -= _plogp(p)
        summed -= _plogp(np.subtract(1.0, p, out=p))
    return summed / total if total > 0.0 else None


def _plogp(p: NDArray[np.float64]) -> float:
    """Sum of p log p, with 0 log 0 = 0.

    No dot product: the threads of a BLAS wait busily for the next one, on the cores that the engine computes on.
    """
    logarithm = np.maximum(p, TINY)
    np.log(logarithm, out=logarithm)
    return float(np.sum(np.multiply(p, logarithm, out=logarithm)))


def dice(prediction: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Dice of two boolean masks of the same shape, 0 to 1; 1 where both are empty."""
    total = int(prediction.sum()) + int(truth.sum())
    return 2.0 * int((prediction & truth).sum()) / total if total else 1.0


def pairwise_dice(packed_masks: Sequence[NDArray[np.uint8]]) -> float | None:
    """Mean Dice over all pairs of bit-packed masks (`numpy.packbits`, zero-padded).

    Two empty masks agree (Dice 1), as in `dice`; None with fewer than two masks or where all are empty.
    """
    sizes = [int(np.bitwise_count(mask).sum()) for mask in packed_masks]
    if len(sizes) < 2 or not any(sizes):
        return None
    scores = []
    for i, j in combinations(range(len(sizes)), 2):
        total = sizes[i] + sizes[j]
        common = int(np.bitwise_count(packed_masks[i] & packed_masks[j]).sum())
        scores.append(2.0 * common / total if total else 1.0)
    return float(np.mean(scores))
