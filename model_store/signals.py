"""Signals: the figures of a scan and of its mask whose distribution tells whether a model still sees what it knows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from model_store.contract import QUANTILES

NQM, PREDICTED_DICE, VOLUME = "nqm", "predicted_dice", "volume_ml"
OUTPUTS = (NQM, PREDICTED_DICE, VOLUME)
"""What is seen of the mask; of several structures, of their union."""
ENSEMBLE = frozenset({NQM, PREDICTED_DICE})
"""Signals that depend on the size of the ensemble."""
AXES = ("x", "y", "z")
"""Of the model's grid: left-right, back-front, down-up."""
VOXELS_MAX = 2**20
"""Quantiles are those of at most so many voxels, evenly spaced: sorting a large scan would take seconds."""
_SPACING_DIGITS = 2
"""0.01 mm: two headers of one scanner may differ by their rounding."""
_DIGITS = 4


def input_signals(image: NDArray[np.float32] | None, *, spacing: Sequence[float]) -> dict[str, float]:
    """Figures of a scan that say nothing of whose it is: spacing (mm), quantiles of its intensities, roughness.

    ``image`` (inputs, x, y, z) is the z-scored scan on the model's grid, or None where it was not made; ``spacing``
    the scan's own along the model's axes. Only finite figures are returned. Roughness of an axis is half the mean
    squared difference of neighbours along it: near 0 for a smooth scan, 1 for white noise. Noise raises it, blur and
    thick slices lower it, while both leave the quantiles much as they were.
    """
    found = {f"spacing_{axis}": round(mm, _SPACING_DIGITS) for axis, mm in zip(AXES, spacing, strict=True)}
    for channel, values in enumerate(() if image is None else image):
        suffix = "" if channel == 0 else f"_{channel}"
        found |= {f"{name}{suffix}": round(value, _DIGITS) for name, value in _figures(values).items()}
    return {name: value for name, value in found.items() if math.isfinite(value)}


def output_signals(*, nqm: float | None, predicted_dice: float | None, volume_ml: float) -> dict[str, float]:
    """Figures of a mask. An undefined NQM is worse than any, and the Dice of a mask without evidence predicted as 0."""
    return {NQM: math.inf if nqm is None else nqm, PREDICTED_DICE: predicted_dice or 0.0, VOLUME: volume_ml}


def _figures(values: NDArray[np.float32]) -> dict[str, float]:
    some = values.ravel()[:: math.ceil(values.size / VOXELS_MAX)]
    quantiles = np.quantile(some, QUANTILES).tolist()
    found = {
        f"intensity_{quantile:.0%}".rstrip("%"): value for quantile, value in zip(QUANTILES, quantiles, strict=True)
    }
    return found | dict(zip((f"roughness_{axis}" for axis in AXES), _roughness(values), strict=True))


def _roughness(values: NDArray[np.float32]) -> list[float]:
    """Per axis, plane by plane, so that a large scan is never held twice; 0 along an axis of one voxel."""
    squares, before = np.zeros(3), None
    for plane in values:
        squares[0] += 0.0 if before is None else float(np.square(plane - before).sum())
        squares[1] += float(np.square(plane[1:] - plane[:-1]).sum())
        squares[2] += float(np.square(plane[:, 1:] - plane[:, :-1]).sum())
        before = plane
    pairs = [values.size // n * (n - 1) for n in values.shape]
    return [0.5 * float(total) / max(count, 1) for total, count in zip(squares, pairs, strict=True)]
