"""The input contract of a version, from the scans it was trained on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from imaging.grid import to_model_grid
from model_store.contract import QUANTILES, intensity_quantiles
from model_store.manifest import InputContract, IntensityQuantiles, Range
from nca.evidence import on_border
from training.config import TrainingConfig
from training.data import Case

SPACING_MARGIN = 1.5
"""Spacings up to this factor beyond those seen are expected: resampling copes with them."""
EXTENT_MARGIN = 1.2
"""A field of view may be smaller or larger than any seen by this factor."""
INTENSITY_MARGIN = 1.0
"""Quantiles may lie this share of the range seen beyond it: other scanners differ, other anatomy differs far more."""
VOLUME_MARGIN = 1.5
"""A structure may be this factor smaller or larger than any seen."""

BORDER_MARGIN = 0.005
"""A structure may have this share more on the edge of the field of view than any seen; of 3 ml, 15 voxels of 1 mm."""


def derive_contract(cases: Sequence[Case], *, config: TrainingConfig) -> InputContract:
    """Ranges seen in training, each widened by its margin."""
    scans = [to_model_grid(case.volume, spacing=None) for case in cases]
    quantiles = np.array([intensity_quantiles(channel) for case in cases for channel in case.image])
    low, high = quantiles.min(0), quantiles.max(0)
    margin = INTENSITY_MARGIN * (high - low)
    structures = _structures(cases, len(config.segments))
    return InputContract(
        modalities=config.model.modalities,
        spacing_mm=_per_axis((scan.spacing for scan in scans), SPACING_MARGIN),
        extent_mm=_per_axis((scan.extent for scan in scans), EXTENT_MARGIN),
        intensity=IntensityQuantiles(
            quantiles=QUANTILES,
            low=tuple(np.round(low - margin, 3).tolist()),
            high=tuple(np.round(high + margin, 3).tolist()),
        ),
        volume_ml=tuple(_volumes(masks, cases) for masks in structures),
        border_max=tuple(_border(masks) for masks in structures),
    )


def _per_axis(values: Iterable[tuple[float, float, float]], factor: float) -> tuple[Range, Range, Range]:
    x, y, z = (_widened(axis, factor) for axis in np.array(list(values)).T)
    return x, y, z


def _structures(cases: Sequence[Case], segments: int) -> list[list[NDArray[np.bool_]]]:
    """The true masks of every segment, and of the union of several, last."""
    each = [[case.truth[segment] for case in cases] for segment in range(segments)]
    return each if segments == 1 else [*each, [np.asarray(case.truth.any(axis=0)) for case in cases]]


def _volumes(masks: Sequence[NDArray[np.bool_]], cases: Sequence[Case]) -> Range:
    volumes = [float(mask.sum()) * case.volume.voxel_ml for mask, case in zip(masks, cases, strict=True)]
    return _widened(np.array([volume for volume in volumes if volume > 0.0]), VOLUME_MARGIN)


def _border(masks: Sequence[NDArray[np.bool_]]) -> float:
    return round(max(on_border(mask) for mask in masks) + BORDER_MARGIN, 3)


def _widened(values: np.ndarray, factor: float) -> Range:
    return round(float(values.min()) / factor, 3), round(float(values.max()) * factor, 3)
