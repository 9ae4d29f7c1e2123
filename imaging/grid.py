"""The grid a model works on, and the way back to the scan's own, voxel for voxel.

Reorientation is a permutation and flips of axes, exact in both directions. Resampling maps voxel centres through
millimetres: the first and last model voxels lie so that both grids share their outer box's centre.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from nibabel.orientations import apply_orientation, io_orientation, ornt_transform
from numpy.typing import NDArray

from imaging.volume import Volume

Spacing = tuple[float, float, float]
RAS = np.array([[0, 1], [1, 1], [2, 1]])
"""nibabel's orientation array of axes that run to the right, to the front and up."""
SPACING_TOLERANCE = 0.01
"""Relative: a spacing within 1 % of the model's is taken as it is, for interpolation would cost more than it mends."""
ANTIALIAS = 0.5
"""Standard deviation of the smoothing before a reduction by f, in source voxels per (f - 1)."""
CONSTANT = 1e-6
"""Standard deviation, over the largest value (or 1), up to which an image holds nothing but rounding."""


@dataclass(frozen=True, eq=False)
class ModelScan:
    """A scan on the model's grid.

    Attributes:
        array: float32 (x, y, z), axes closest to right, front and up.
        spacing: of ``array``'s axes in mm, as the scan has it (before resampling).
        extent: of the scan's field of view along these axes in mm.
    """

    array: NDArray[np.float32]
    spacing: Spacing
    extent: Spacing
    _to_scan: NDArray[np.float64]
    _oriented_shape: tuple[int, int, int]

    def to_native(self, array: NDArray[np.floating]) -> NDArray[np.float32]:
        """Bring a map (x, y, z) on the model's grid to the scan's own grid, linearly.

        Without resampling it is exact, and a float32 map is not copied: a view of it is returned.
        """
        if array.shape != self.array.shape:
            raise ValueError(f"the map is {array.shape}, the model's grid {self.array.shape}")
        oriented = _resample(array.astype(np.float32, copy=False), self._oriented_shape)
        native: NDArray[np.float32] = apply_orientation(oriented, self._to_scan)
        return native


def to_model_grid(volume: Volume, *, spacing: Spacing | None) -> ModelScan:
    """Reorient a scan to the closest RAS+ axes and resample it linearly to ``spacing`` (mm); None keeps its own.

    Where an axis is reduced it is smoothed before, so that fine detail does not alias.
    """
    to_ras, oriented_shape = _orientation(volume)
    oriented = apply_orientation(volume.array, to_ras)
    own = _along_ras(volume.spacing, to_ras)
    shape = _shape(oriented_shape, own, spacing)
    extent = tuple(n * s for n, s in zip(oriented_shape, own, strict=True))
    array = np.ascontiguousarray(_resample(_smoothed(oriented, shape), shape), dtype=np.float32)
    return ModelScan(
        array=array,
        spacing=own,
        extent=(extent[0], extent[1], extent[2]),
        _to_scan=ornt_transform(RAS, io_orientation(volume.affine)),
        _oriented_shape=oriented_shape,
    )


def model_grid_shape(volume: Volume, spacing: Spacing | None) -> tuple[int, int, int]:
    """The shape that `to_model_grid` would give, at no cost."""
    to_ras, oriented_shape = _orientation(volume)
    return _shape(oriented_shape, _along_ras(volume.spacing, to_ras), spacing)


def znormalise(array: NDArray[np.floating]) -> NDArray[np.float32]:
    """Mean 0 and standard deviation 1 over the whole array; zeros where it is constant.

    Computed in double precision, plane by plane, so that the scan is never held in doubles.
    """
    mean = float(np.mean(array, dtype=np.float64))
    squares = sum(float(np.sum((plane.astype(np.float64) - mean) ** 2)) for plane in array)
    deviation = math.sqrt(squares / array.size)
    scores = np.zeros(array.shape, dtype=np.float32)
    if deviation > CONSTANT * max(1.0, float(array.max()), -float(array.min())):
        for plane, target in zip(array, scores, strict=True):
            target[...] = (plane.astype(np.float64) - mean) / deviation
    return scores


def _orientation(volume: Volume) -> tuple[NDArray[np.float64], tuple[int, int, int]]:
    """nibabel's transform to RAS+ axes, and the scan's shape along them."""
    to_ras = ornt_transform(io_orientation(volume.affine), RAS)
    x, y, z = _along_ras(volume.array.shape, to_ras)
    return to_ras, (int(x), int(y), int(z))


def _along_ras(values: Sequence[float], to_ras: NDArray[np.float64]) -> Spacing:
    """Per-axis values of the scan, reordered to the axes they become."""
    along = [0.0, 0.0, 0.0]
    for value, axis in zip(values, to_ras[:, 0], strict=True):
        along[int(axis)] = value
    return along[0], along[1], along[2]


def _shape(shape: tuple[int, int, int], own: Spacing, wanted: Spacing | None) -> tuple[int, int, int]:
    if wanted is None:
        return shape
    x, y, z = (
        n if abs(have / want - 1) <= SPACING_TOLERANCE else max(1, round(n * have / want))
        for n, have, want in zip(shape, own, wanted, strict=True)
    )
    return x, y, z


def _smoothed(array: NDArray[np.float32], shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """The array, smoothed along the axes that ``shape`` reduces."""
    factors = [n / m for n, m in zip(array.shape, shape, strict=True)]
    if max(factors) <= 1:
        return array
    from scipy import ndimage  # imported late: it costs more than all else here, and many scans need none

    result: NDArray[np.float32] = ndimage.gaussian_filter(
        array, [ANTIALIAS * max(0.0, factor - 1) for factor in factors], mode="nearest"
    )
    return result


def _resample(array: NDArray[np.float32], shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """Linear interpolation onto ``shape`` over the same box: voxel edges, not centres, of the two grids coincide."""
    if array.shape == shape:
        return array
    from scipy import ndimage  # imported late, as above

    result: NDArray[np.float32] = ndimage.zoom(
        array, [m / n for n, m in zip(array.shape, shape, strict=True)], order=1, mode="nearest", grid_mode=True
    )
    return result
