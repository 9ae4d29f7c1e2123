"""The input contract: is this a scan of the kind the model was made for?"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, prod

import numpy as np
from numpy.typing import NDArray

from model_store.manifest import InputContract, IntensityQuantiles, Preprocessing
from nca.gate import Reason

AXES = ("left-right", "back-front", "down-up")
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
FAR_OUTSIDE = 4
"""A scan with more than this many times the voxels of the largest expected one is not run through the network."""


def violations(
    contract: InputContract,
    *,
    modality: str | None,
    spacing: Sequence[float],
    extent: Sequence[float],
    image: NDArray[np.float32] | None,
) -> list[Reason]:
    """Every breach of the contract, as reasons to flag.

    ``spacing`` (mm) is the scan's own and ``extent`` (mm) its field of view, both along the model's axes
    (x left-right, y back-front, z down-up); ``image`` (inputs, x, y, z) is the z-scored scan on the model's grid, or
    None where it was not made and its intensities are not judged.
    """
    reasons = []
    if modality is not None and modality not in contract.modalities:
        expected = " or ".join(contract.modalities)
        reasons.append(Reason("modality_unexpected", f"the scan is {modality}; the model was made for {expected}"))
    reasons += _outside("spacing_out_of_range", "voxel spacing", spacing, contract.spacing_mm)
    reasons += _outside("extent_out_of_range", "field of view", extent, contract.extent_mm)
    for channel in () if image is None else image:
        reasons += _unusual_intensity(contract.intensity, channel)
    return reasons


def far_outside(contract: InputContract, preprocessing: Preprocessing, *, grid: Sequence[int]) -> bool:
    """Whether a model grid of (x, y, z) voxels is so large that a mask would mean nothing, and take minutes."""
    spacing = preprocessing.spacing_mm or tuple(low for low, _ in contract.spacing_mm)
    largest = prod(high / step for (_, high), step in zip(contract.extent_mm, spacing, strict=True))
    return prod(grid) > FAR_OUTSIDE * ceil(largest)


def intensity_quantiles(image: NDArray[np.float32]) -> NDArray[np.float64]:
    """The quantiles of `QUANTILES` of one channel of a z-scored image."""
    values: NDArray[np.float64] = np.quantile(image, QUANTILES)
    return values


def _outside(code: str, what: str, values: Sequence[float], ranges: Sequence[tuple[float, float]]) -> list[Reason]:
    wrong = [
        f"{value:.3g} mm {axis} (expected {low:.3g} to {high:.3g})"
        for axis, value, (low, high) in zip(AXES, values, ranges, strict=True)
        if not low <= value <= high
    ]
    return [Reason(code, f"the {what} is {', '.join(wrong)}")] if wrong else []


def _unusual_intensity(expected: IntensityQuantiles, image: NDArray[np.float32]) -> list[Reason]:
    values = np.quantile(image, expected.quantiles)
    wrong = [
        f"the {quantile:.0%} quantile is {value:.2f} standard deviations (expected {low:.2f} to {high:.2f})"
        for quantile, value, low, high in zip(expected.quantiles, values, expected.low, expected.high, strict=True)
        if not low <= value <= high
    ]
    detail = "the intensities are distributed unlike those of the training scans: "
    return [Reason("intensity_unusual", detail + "; ".join(wrong))] if wrong else []
