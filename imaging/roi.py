"""A region of interest: where in a scan to look, the part of the grid that this is, and the way back to the whole.

A region is written ``SPACE:x0,y0,z0:x1,y1,z1``, two opposite corners of a box, the first the lower one on every axis:

    ras     mm of the patient, to the right, to the front and up (the convention of NIfTI and of this project)
    lps     mm of the patient, to the left, to the back and up (as DICOM writes them)
    centre  as ``ras``, but counted from the middle of the imaged box, wherever the patient lies
    voxel   indices from 0 of the scan's own grid, the upper corner excluded; x, y, z are the file's axes: in NIfTI as
            they are stored, in a DICOM series along the rows, down the columns, and along the slices' normal
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from imaging.errors import RoiInvalidError, RoiOutsideError, RoiTooThinError
from imaging.volume import Volume

Space = Literal["ras", "lps", "centre", "voxel"]
Corner = tuple[float, float, float]
Index = tuple[int, int, int]
SPACES: tuple[Space, ...] = get_args(Space)
NUMBER = re.compile(r"[+-]?[0-9]{1,6}(\.[0-9]{1,6})?")
"""A decimal number of up to six digits on either side of the point: no scan is larger, no voxel smaller."""
GRAMMAR = "SPACE:x0,y0,z0:x1,y1,z1"
INDEX_TOLERANCE = 1e-4
"""In voxels: a corner this close to a voxel's centre lies on it, so that rounding does not take or give a voxel."""
VOXELS_MIN = 2
"""Along every axis, as in a scan: a single slice has no extent."""
CUT_TO_SCAN = "The region of interest reaches beyond the scan; the part within it was taken."
LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])


@dataclass(frozen=True)
class Roi:
    """A box in one of the spaces; ``low`` is below ``high`` on every axis. ``str`` of it is what `parse` takes."""

    space: Space
    low: Corner
    high: Corner

    @classmethod
    def parse(cls, text: str) -> Roi:
        """Read ``SPACE:x0,y0,z0:x1,y1,z1``.

        Raises:
            RoiInvalidError: the text is none, or its box is empty.
        """
        space, *corners = text.split(":")
        found = next((one for one in SPACES if one == space), None)
        if found is None or len(corners) != 2:
            raise RoiInvalidError(f"a region of interest is {GRAMMAR}, SPACE one of {', '.join(SPACES)}")
        low, high = (_corner(corner, whole=found == "voxel") for corner in corners)
        if not all(one < other for one, other in zip(low, high, strict=True)):
            raise RoiInvalidError("the first corner of a region of interest is the lower one on every axis")
        return cls(found, low, high)

    def __str__(self) -> str:
        low, high = (",".join(map(_shortest, corner)) for corner in (self.low, self.high))
        return f"{self.space}:{low}:{high}"


def _shortest(value: float) -> str:
    """The number as `NUMBER` has it, without trailing zeros."""
    return f"{value:.6f}".rstrip("0").rstrip(".")


def _corner(text: str, *, whole: bool) -> Corner:
    values = text.split(",")
    if len(values) != 3 or not all(NUMBER.fullmatch(one) for one in values):
        raise RoiInvalidError(f"a corner of a region of interest is three numbers ({GRAMMAR})")
    x, y, z = (float(one) + 0.0 for one in values)  # -0 becomes 0
    if whole and any(one < 0 or not one.is_integer() for one in (x, y, z)):
        raise RoiInvalidError("voxel indices are whole numbers from 0")
    return x, y, z


@dataclass(frozen=True)
class Region:
    """A box of voxels within a scan's grid.

    Attributes:
        start, stop: first voxel of the box and the one after its last, along x, y, z.
        shape: of the whole grid.
        warnings: what was odd about asking for it, one sentence each.
    """

    start: Index
    stop: Index
    shape: Index
    warnings: tuple[str, ...] = ()

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """The box as an index into an array (x, y, z) on the whole grid."""
        x, y, z = (slice(*ends) for ends in zip(self.start, self.stop, strict=True))
        return x, y, z

    @property
    def is_whole(self) -> bool:
        """Whether it is the whole grid."""
        return self.start == (0, 0, 0) and self.stop == self.shape

    def cut(self, volume: Volume) -> Volume:
        """The part of a scan on the whole grid, every channel, its affine moved to the first voxel.

        Its ``source`` stays that of the whole series.
        """
        if self.is_whole:
            return volume
        first, *further = (one[self.slices] for one in volume.channels)
        affine = volume.affine.copy()
        affine[:3, 3] += affine[:3, :3] @ self.start
        return replace(volume, array=first, further=tuple(further), affine=affine)

    def paste(self, part: NDArray[Any]) -> NDArray[Any]:
        """An array (x, y, z) of the region on the whole grid, 0 outside; itself where the region is the whole."""
        if self.is_whole:
            return part
        whole = np.zeros(self.shape, part.dtype)
        whole[self.slices] = part
        return whole

    def cuts(self, mask: NDArray[np.bool_]) -> bool:
        """Whether a mask (x, y, z) of the region touches a face of it behind which the scan goes on."""
        for axis, (start, stop, size) in enumerate(zip(self.start, self.stop, self.shape, strict=True)):
            layers = np.moveaxis(mask, axis, 0)
            if (start > 0 and layers[0].any()) or (stop < size and layers[-1].any()):
                return True
        return False

    def with_surroundings(self, share: float) -> Region:
        """The region and ``share`` of its edges more on every side, as far as the grid goes."""
        margin = [round(share * (stop - start)) for start, stop in zip(self.start, self.stop, strict=True)]
        start = tuple(max(0, one - more) for one, more in zip(self.start, margin, strict=True))
        ends = zip(self.stop, margin, self.shape, strict=True)
        return _region(start, tuple(min(size, one + more) for one, more, size in ends), self.shape)


def locate(volume: Volume, roi: Roi | None) -> Region:
    """The voxels of a scan whose centres lie in a region of interest; the whole grid where there is none.

    On a grid at an angle to the region's space it is the smallest box of voxels around the region. A region as long as
    n voxels has n of them, wherever it begins.

    Raises:
        RoiOutsideError: it holds no voxel of the scan.
        RoiTooThinError: within the scan it has a single voxel along an axis.
    """
    shape = volume.array.shape
    if roi is None:
        return _region((0, 0, 0), shape, shape)
    low, high = _indices(volume, roi)
    wanted = [tuple(int(one) for one in np.ceil(ends - INDEX_TOLERANCE)) for ends in (low, high)]
    start, stop = (tuple(np.clip(ends, 0, shape).tolist()) for ends in wanted)
    lengths = [end - begin for begin, end in zip(start, stop, strict=True)]
    if min(lengths) <= 0:
        raise RoiOutsideError(f"the region of interest {roi} holds no voxel of the scan")
    if min(lengths) < VOXELS_MIN:
        raise RoiTooThinError(f"the region of interest {roi} is a single voxel thick")
    return replace(_region(start, stop, shape), warnings=() if wanted == [start, stop] else (CUT_TO_SCAN,))


def _indices(volume: Volume, roi: Roi) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The smallest box around the region in voxel indices, each (3,): its least and its greatest corner."""
    corners = np.array(list(itertools.product(*zip(roi.low, roi.high, strict=True))))
    if roi.space == "voxel":
        return corners.min(axis=0), corners.max(axis=0)
    if roi.space == "lps":
        corners = corners * LPS_TO_RAS
    matrix, origin = volume.affine[:3, :3], volume.affine[:3, 3]
    if roi.space == "centre":
        corners = corners + origin + matrix @ ((np.array(volume.array.shape) - 1) / 2)
    indices = np.linalg.solve(matrix, (corners - origin).T).T
    return indices.min(axis=0), indices.max(axis=0)


def _region(start: tuple[int, ...], stop: tuple[int, ...], shape: tuple[int, ...]) -> Region:
    return Region((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]), (shape[0], shape[1], shape[2]))
