"""The one convention for a scan in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

AFFINE_SHAPE = (4, 4)
Shape = tuple[int, int, int]


class Slices(Protocol):
    """Where a reader puts the voxels of one channel, slice by slice, every slice once."""

    def put(self, k: int, rows: NDArray[np.float32]) -> None:
        """Take slice [:, :, k], given as rows [y, x], C-contiguous."""

    def array(self) -> NDArray[np.float32]:
        """All of them: float32 (x, y, z)."""


class InMemory:
    """`Slices` in an array of this process's own, x along a line of memory."""

    def __init__(self, shape: Shape) -> None:
        self._array = np.empty(shape, dtype=np.float32, order="F")

    def put(self, k: int, rows: NDArray[np.float32]) -> None:
        """As `Slices.put`."""
        self._array[:, :, k] = rows.T

    def array(self) -> NDArray[np.float32]:
        """As `Slices.array`."""
        return self._array


Allocate = Callable[[Shape], Slices]
"""Makes room for one channel of (x, y, z) voxels."""


@dataclass(frozen=True, eq=False)
class Volume:
    """One scan: ``array[x, y, z]`` in voxels, ``affine`` from voxel index to millimetres in RAS+.

    Attributes:
        array: float32 (x, y, z), finite, read-only; in memory as it was in its file, x along a line for a reader's.
        source: the file of each slice of a DICOM series in the order of z, as long as the reader's caller keeps them.
        frames: which frame (from 0) of its file each slice is; empty where every file holds one.
        further: more channels of the same scan (another contrast, another time) on the same grid, each as ``array``.
        affine: float64 (4, 4); ``affine @ (i, j, k, 1)`` is the centre of voxel (i, j, k) in mm, RAS+.
        modality: DICOM modality ("MR", "CT", ...) where the file says it, else None (NIfTI never does).
        warnings: what a reader found odd but usable, one sentence each, without patient data.
    """

    array: NDArray[np.float32]
    affine: NDArray[np.float64]
    modality: str | None = None
    warnings: tuple[str, ...] = field(default=())
    further: tuple[NDArray[np.float32], ...] = ()
    source: tuple[Path, ...] = ()
    frames: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        array, *further = (_read_only(one) for one in (self.array, *self.further))
        affine = np.array(self.affine, dtype=np.float64)
        if array.ndim != 3 or affine.shape != AFFINE_SHAPE:
            raise ValueError(f"a Volume is (x, y, z) with a (4, 4) affine, not {array.shape} with {affine.shape}")
        if any(one.shape != array.shape for one in further):
            raise ValueError("the channels of a Volume have one grid")
        affine.flags.writeable = False
        object.__setattr__(self, "array", array)
        object.__setattr__(self, "further", tuple(further))
        object.__setattr__(self, "affine", affine)

    @property
    def channels(self) -> tuple[NDArray[np.float32], ...]:
        """``array`` and what is ``further`` to it."""
        return self.array, *self.further

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxel centres along x, y, z in mm."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x), float(y), float(z)

    @property
    def extent(self) -> tuple[float, float, float]:
        """Edge lengths of the imaged box along x, y, z in mm (voxels times spacing)."""
        x, y, z = np.asarray(self.array.shape) * np.asarray(self.spacing)
        return float(x), float(y), float(z)

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in millilitres (1 ml = 1000 mm^3)."""
        return float(abs(np.linalg.det(self.affine[:3, :3])) / 1000.0)


def _read_only(array: NDArray[np.floating]) -> NDArray[np.float32]:
    """Float32; a view, so that the caller's own array stays writable."""
    view = np.asarray(array, dtype=np.float32).view()
    view.flags.writeable = False
    return view
