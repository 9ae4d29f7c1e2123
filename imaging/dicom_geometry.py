"""Where a series' slices lie: one box, or a reason why not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imaging.errors import (
    DuplicateSliceError,
    MissingSliceError,
    MixedGeometryError,
    TiltedSeriesError,
)

DIRECTION_TOLERANCE = 1e-3
"""Largest difference of a direction cosine between slices, and from a right angle (0.06 degrees)."""
SPACING_TOLERANCE = 0.02
"""Relative deviation of a slice distance from the mean; scanners write positions to 0.01 mm or so."""
LATERAL_TOLERANCE = 0.05
"""Sideways drift of the slices in mm per mm along the normal: more is a tilted gantry."""
PLACE_TOLERANCE = 0.1
"""Distance of a slice from its place in the box, in the smallest edge of a voxel."""
SAME_PLACE_MM = 1e-3
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True, eq=False)
class Slice:
    """DICOM part 3, C.7.6.2: direction cosines (6,), position (3,) in mm LPS, spacing (2,) between rows and columns."""

    orientation: NDArray[np.float64]
    position: NDArray[np.float64]
    spacing: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Stack:
    """The order of the slices along their normal, and the affine to mm RAS+."""

    order: list[int]
    affine: NDArray[np.float64]


def stack(slices: Sequence[Slice]) -> Stack:
    """Sort slices along their normal and check that they fill a box evenly.

    Raises:
        MixedGeometryError: orientation or pixel spacing differ or are impossible, or distances vary.
        DuplicateSliceError, MissingSliceError, TiltedSeriesError: as they say.
    """
    first = slices[0]
    _check_alike(slices)
    along_row, along_column = first.orientation[:3], first.orientation[3:]
    normal = np.cross(along_row, along_column)
    positions = np.array([one.position for one in slices])
    distances = positions @ normal
    order = np.argsort(distances, kind="stable")
    step = _step(distances[order])
    offsets = positions[order] - positions[order[0]]
    sideways = offsets - np.outer(offsets @ normal, normal)
    drift = float(np.linalg.norm(sideways[-1]) / (distances[order[-1]] - distances[order[0]]))
    if drift > LATERAL_TOLERANCE:
        raise TiltedSeriesError(f"the slices drift {drift:.2f} mm sideways for every mm along their normal")
    affine = np.eye(4)
    affine[:3, 0] = along_row * first.spacing[1]  # PixelSpacing is (between rows, between columns)
    affine[:3, 1] = along_column * first.spacing[0]
    affine[:3, 2] = offsets[-1] / (len(slices) - 1) if drift > 0 else normal * step
    affine[:3, 3] = positions[order[0]]
    _check_places(positions[order], affine)
    return Stack(order.tolist(), LPS_TO_RAS @ affine)


def _check_alike(slices: Sequence[Slice]) -> None:
    first = slices[0]
    row, column = first.orientation[:3], first.orientation[3:]
    lengths = np.array([np.linalg.norm(row), np.linalg.norm(column), 1 + row @ column])
    everything = np.concatenate([np.concatenate([one.orientation, one.position, one.spacing]) for one in slices])
    if not np.isfinite(everything).all() or not np.allclose(lengths, 1.0, atol=DIRECTION_TOLERANCE):
        raise MixedGeometryError("the slices' orientation is not a pair of perpendicular directions")
    if (first.spacing <= 0).any():
        raise MixedGeometryError("the pixel spacing is not positive")
    for one in slices:
        if not np.allclose(one.orientation, first.orientation, atol=DIRECTION_TOLERANCE):
            raise MixedGeometryError("the slices have several orientations")
        if not np.allclose(one.spacing, first.spacing, rtol=1e-3):
            raise MixedGeometryError("the slices have several pixel spacings")


def _check_places(positions: NDArray[np.float64], affine: NDArray[np.float64]) -> None:
    """Refuse sorted positions (n, 3) that the box does not share: slices moved sideways, drift that adds up."""
    placed = np.arange(len(positions))[:, None] * affine[:3, 2] + affine[:3, 3]
    distance = float(np.linalg.norm(positions - placed, axis=1).max())
    if distance > PLACE_TOLERANCE * float(np.linalg.norm(affine[:3, :3], axis=0).min()):
        raise MixedGeometryError(f"a slice lies {distance:.2f} mm beside the line of the others")


def _step(distances: NDArray[np.float64]) -> float:
    """The even distance between sorted slices in mm."""
    gaps = np.diff(distances)
    if (gaps < SAME_PLACE_MM).any():
        raise DuplicateSliceError("two slices lie in the same place")
    usual = float(np.sort(gaps)[(len(gaps) - 1) // 2])  # the lower median: of two gaps the larger holds the hole
    if (gaps > 1.5 * usual).any():
        missing = int(np.sum(np.round(gaps / usual) - 1))
        raise MissingSliceError(f"slices are missing between the {len(distances)} sent: {missing}")
    mean = float(gaps.mean())
    if (np.abs(gaps - mean) > SPACING_TOLERANCE * mean).any():
        raise MixedGeometryError(f"the distance between slices varies from {gaps.min():.3f} to {gaps.max():.3f} mm")
    return mean
