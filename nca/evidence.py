"""What is seen of a mask without knowing the truth: the figures that a predicted Dice is drawn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NQM_OFFSET = 0.01
"""Added to NQM before its logarithm: below it, differences mean nothing."""


@dataclass(frozen=True)
class Evidence:
    """Figures of one segment's ensemble, on the model's grid; defined for every mask that is not empty.

    Attributes:
        nqm: NCA quality metric, spread of the probabilities (seed, equation 1).
        log_nqm: logarithm of nqm + 0.01: Dice falls more evenly with it.
        mask_nqm: NQM of the members' binarised masks.
        disagreement: 1 - mean Dice between all pairs of members' masks.
        entropy: of the mean probability (nats), summed, over the summed mean.
        stray: share of the mask outside its largest connected part.
        border: share of the mask that lies on the outermost layer of the field of view.
    """

    nqm: float
    log_nqm: float
    mask_nqm: float
    disagreement: float
    entropy: float
    stray: float
    border: float

    def vector(self, names: Sequence[str]) -> NDArray[np.float64]:
        """The figures of these names."""
        return np.array([getattr(self, name) for name in names], dtype=np.float64)


def on_border(mask: NDArray[np.bool_]) -> float:
    """Share of a mask (x, y, z) that lies on the outermost layer of the grid; 0 where it is empty."""
    voxels = int(np.count_nonzero(mask))
    return 1.0 - int(np.count_nonzero(mask[1:-1, 1:-1, 1:-1])) / voxels if voxels else 0.0


def stray(mask: NDArray[np.bool_]) -> float:
    """Share of a mask (x, y, z) that is not empty outside its largest part, connected by faces."""
    from scipy import ndimage  # imported late: it costs more than all else here

    box = ndimage.find_objects(mask.view(np.uint8))[0]
    parts, _ = ndimage.label(mask[box])
    sizes = np.bincount(parts.ravel())[1:]
    return 1.0 - int(sizes.max()) / int(sizes.sum())
