"""A DICOM series as one Volume: decoded, sorted along its normal, refused where its geometry is not that of a box."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from imaging.dicom_file import ImageHeader, read_header, read_pixels
from imaging.dicom_geometry import Slice, stack
from imaging.errors import (
    DicomdirUnsupportedError,
    MixedGeometryError,
    MixedSeriesError,
    MultiframeUnsupportedError,
    NoDicomImagesError,
    NonFiniteVoxelsError,
    SingleSliceError,
    TooManyVoxelsError,
    UnsupportedPixelsError,
)
from imaging.limits import Limits
from imaging.volume import Volume


def read_dicom_series(paths: Sequence[Path], *, limits: Limits) -> Volume:
    """Read one series, one file a slice, in any order: float32 [x, y, z], affine in mm RAS+, with its modality.

    x runs along the image's rows, y down its columns, z along the normal (the cross product of the two).
    Objects without an image (SEG, SR, a DICOMDIR, ...) and files that are no DICOM are left out with a warning;
    an image that is cut off or damaged never is.

    Raises:
        ImagingError: the subclass says what keeps the files from being one box of slices.
    """
    images = _images(paths)
    _check_series(images)
    _check_size(images, limits=limits)
    slices = stack([_place(one) for one in images])
    array = np.empty((images[0].columns, images[0].rows, len(images)), dtype=np.float32)
    for k, index in enumerate(slices.order):
        array[:, :, k] = read_pixels(images[index]).T
    if not np.isfinite(array).all():
        raise NonFiniteVoxelsError("the rescaled pixels hold NaN or infinite values")
    return Volume(
        array,
        slices.affine,
        modality=images[0].modality,
        warnings=_left_out(len(paths) - len(images)),
        source=tuple(images[index].path for index in slices.order),
    )


def _images(paths: Sequence[Path]) -> list[ImageHeader]:
    """The headers of the images among the files, at least one."""
    images, directories = [], 0
    for path in paths:
        try:
            header = read_header(path)
        except DicomdirUnsupportedError:  # every CD has one beside its images
            directories += 1
            continue
        if header is not None:
            images.append(header)
    if not images and directories:
        raise DicomdirUnsupportedError("a DICOMDIR lists files and holds none: send the files themselves")
    if not images:
        raise NoDicomImagesError("there is no DICOM image among the files")
    return images


def _check_series(images: Sequence[ImageHeader]) -> None:
    """Refuse what is not one series of greyscale slices of one size."""
    series = {one.series for one in images}
    if len(series) > 1:
        raise MixedSeriesError(f"the files belong to {len(series)} series; send one")
    if any(one.frames > 1 for one in images):
        raise MultiframeUnsupportedError("multi-frame DICOM is not accepted yet")
    if not all(one.grey for one in images):
        raise UnsupportedPixelsError("the images are not greyscale")
    for name in ("rows", "columns", "frame_of_reference", "modality"):
        if len({getattr(one, name) for one in images}) > 1:
            raise MixedGeometryError(f"the slices differ in their {name.replace('_', ' ')}")
    if len(images) < 2:
        raise SingleSliceError("a series has at least two slices")


def _check_size(images: Sequence[ImageHeader], *, limits: Limits) -> None:
    voxels = images[0].rows * images[0].columns * len(images)
    if voxels > limits.voxels:
        raise TooManyVoxelsError(f"the series has {voxels} voxels; at most {limits.voxels} are accepted")


def _place(image: ImageHeader) -> Slice:
    if image.place is None:
        raise MixedGeometryError("a slice does not say where it lies")
    return image.place


def _left_out(count: int) -> tuple[str, ...]:
    if not count:
        return ()
    return (f"{count} file{'s' if count > 1 else ''} without an image left out.",)
