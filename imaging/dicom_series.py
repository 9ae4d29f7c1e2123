"""A DICOM series as one Volume: decoded, sorted along its normal, refused where its geometry is not that of a box."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imaging.dicom_choice import Series, choose
from imaging.dicom_header import DICOMDIR, ImageHeader, NoImage, read_header
from imaging.dicom_pixels import read_frames
from imaging.errors import DicomdirUnsupportedError, NoDicomImagesError, NonFiniteVoxelsError
from imaging.limits import Limits
from imaging.request import ANY, Wanted
from imaging.volume import Allocate, Volume, in_memory

BLOCK = 16
"""Slices that are put into the array together: 16 neighbours along z are a line of the cache (64 bytes)."""
BLOCK_VOXELS = 1 << 24
"""Voxels of a block, at most: 64 MiB."""


def read_dicom_series(
    paths: Sequence[Path], *, limits: Limits, wanted: Wanted = ANY, allocate: Allocate = in_memory
) -> Volume:
    """Read one series, one slice or many a file, in any order: float32 [x, y, z], affine in mm RAS+, with its modality.

    x runs along the image's rows, y down its columns, z along the normal (the cross product of the two).
    Objects without an image (SEG, SR, a DICOMDIR, ...) and files that are no DICOM are left out with a warning, and
    so are other series where one alone is ``wanted``; an image that is cut off or damaged never is.

    Raises:
        ImagingError: the subclass says what keeps the files from being one box of slices.
    """
    found = [read_header(path, limits=limits) for path in paths]
    without = Counter(one.kind for one in found if isinstance(one, NoImage))
    images = [one for one in found if isinstance(one, ImageHeader)]
    if not images and DICOMDIR in without:
        raise DicomdirUnsupportedError("a DICOMDIR lists files and holds none: send the files themselves")
    if not images:
        raise NoDicomImagesError("there is no DICOM image among the files")
    series, others = choose(images, wanted, limits=limits)
    in_order = [series.frames[index] for index in series.stack.order]
    return Volume(
        _array(series, allocate),
        series.stack.affine,
        modality=series.images[0].modality,
        warnings=(*others, *_left_out(without)),
        source=tuple(image.path for image, _ in in_order),
        frames=tuple(number for _, number in in_order) if len(series.images) < len(in_order) else (),
    )


def _array(series: Series, allocate: Allocate) -> NDArray[np.float32]:
    """The values [x, y, z], decoded block by block."""
    first, count = series.images[0], len(series.frames)
    array = allocate((first.columns, first.rows, count))
    size = max(1, min(BLOCK, count, BLOCK_VOXELS // (first.rows * first.columns)))
    block, places = np.empty((size, first.rows, first.columns), np.float32), list[int]()
    for place, values in _decoded(series):
        block[len(places)] = values
        places.append(place)
        if len(places) == size:
            _put(array, block, places)
            places = []
    if places:
        _put(array, block[: len(places)], places)
    return array


def _decoded(series: Series) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Each frame's place along z and its values (rows, columns), file by file, along z as far as files allow."""
    places = {series.frames[index]: place for place, index in enumerate(series.stack.order)}
    for image in dict.fromkeys(image for image, _ in places):
        for number, values in enumerate(read_frames(image)):
            yield places[image, number], values


def _put(array: NDArray[np.float32], block: NDArray[np.float32], places: list[int]) -> None:
    """Write slices (n, rows, columns) to their places along z; neighbours, up or down, at once."""
    if not np.isfinite(block).all():
        raise NonFiniteVoxelsError("the rescaled pixels hold NaN or infinite values")
    low, n = min(places), len(places)
    if places == list(range(low, low + n)):
        array[:, :, low : low + n] = block.transpose(2, 1, 0)
    elif places == list(range(low, low + n))[::-1]:
        array[:, :, low : low + n] = block[::-1].transpose(2, 1, 0)
    else:
        array[:, :, places] = block.transpose(2, 1, 0)


def _left_out(without: Counter[str]) -> tuple[str, ...]:
    """What was skipped, by kind: never by name."""
    if not without:
        return ()
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(without.items()))
    count = without.total()
    return (f"{count} file{'s' if count > 1 else ''} without an image left out: {kinds}.",)
