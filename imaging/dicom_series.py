"""A DICOM series as one Volume: decoded, sorted along its normal, refused where its geometry is not that of a box."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imaging.dicom_choice import Series, choose
from imaging.dicom_header import DICOMDIR, ImageHeader, NoImage, read_header
from imaging.dicom_pixels import read_frames
from imaging.errors import DicomdirUnsupportedError, NoDicomImagesError, NonFiniteVoxelsError
from imaging.limits import Limits
from imaging.request import ANY, Wanted
from imaging.volume import Allocate, InMemory, Volume


def read_dicom_series(
    paths: Sequence[Path], *, limits: Limits, wanted: Wanted = ANY, allocate: Allocate = InMemory
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
        _voxels(series, allocate),
        series.stack.affine,
        modality=series.images[0].modality,
        warnings=(*others, *_left_out(without)),
        source=tuple(image.path for image, _ in in_order),
        frames=tuple(number for _, number in in_order) if len(series.images) < len(in_order) else (),
    )


def _voxels(series: Series, allocate: Allocate) -> NDArray[np.float32]:
    """The values [x, y, z]; files are decoded along z, as far as each holds one slice."""
    first = series.images[0]
    slices = allocate((first.columns, first.rows, len(series.frames)))
    places = {series.frames[index]: place for place, index in enumerate(series.stack.order)}
    for image in dict.fromkeys(image for image, _ in places):
        for number, values in enumerate(read_frames(image)):
            if not np.isfinite(values).all():
                raise NonFiniteVoxelsError("the rescaled pixels hold NaN or infinite values")
            slices.put(places[image, number], values)
    return slices.array()


def _left_out(without: Counter[str]) -> tuple[str, ...]:
    """What was skipped, by kind: never by name."""
    if not without:
        return ()
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(without.items()))
    count = without.total()
    return (f"{count} file{'s' if count > 1 else ''} without an image left out: {kinds}.",)
