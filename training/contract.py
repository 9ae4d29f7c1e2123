"""The input contract of a version, from the scans it was trained on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from imaging.grid import to_model_grid
from model_store.contract import QUANTILES, intensity_quantiles
from model_store.manifest import InputContract, IntensityQuantiles, Range
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


def derive_contract(cases: Sequence[Case], *, config: TrainingConfig) -> InputContract:
    """Ranges seen in training, each widened by its margin."""
    scans = [to_model_grid(case.volume, spacing=None) for case in cases]
    quantiles = np.array([intensity_quantiles(case.image) for case in cases])
    low, high = quantiles.min(0), quantiles.max(0)
    margin = INTENSITY_MARGIN * (high - low)
    return InputContract(
        modalities=config.model.modalities,
        spacing_mm=_per_axis((scan.spacing for scan in scans), SPACING_MARGIN),
        extent_mm=_per_axis((scan.extent for scan in scans), EXTENT_MARGIN),
        intensity=IntensityQuantiles(
            quantiles=QUANTILES,
            low=tuple(np.round(low - margin, 3).tolist()),
            high=tuple(np.round(high + margin, 3).tolist()),
        ),
        volume_ml=tuple(_volumes(cases, segment) for segment in range(len(config.segments))),
    )


def _per_axis(values: Iterable[tuple[float, float, float]], factor: float) -> tuple[Range, Range, Range]:
    x, y, z = (_widened(axis, factor) for axis in np.array(list(values)).T)
    return x, y, z


def _volumes(cases: Sequence[Case], segment: int) -> Range:
    volumes = [float(case.truth[segment].sum()) * case.volume.voxel_ml for case in cases]
    return _widened(np.array([volume for volume in volumes if volume > 0.0]), VOLUME_MARGIN)


def _widened(values: np.ndarray, factor: float) -> Range:
    return round(float(values.min()) / factor, 3), round(float(values.max()) * factor, 3)
