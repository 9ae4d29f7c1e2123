"""A DICOM series as one Volume: decoded, sorted along its normal, refused where its geometry is not that of a box."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.filereader import read_file_meta_info
from pydicom.pixels.processing import apply_modality_lut
from pydicom.uid import DeflatedExplicitVRLittleEndian, MediaStorageDirectoryStorage

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
    UndecodablePixelsError,
    UnsupportedPixelsError,
)
from imaging.limits import Limits
from imaging.volume import Volume

GREY = ("MONOCHROME1", "MONOCHROME2")


@dataclass(frozen=True)
class _Header:
    """What is checked before any pixel is decoded."""

    path: Path
    dataset: Dataset


def read_dicom_series(paths: Sequence[Path], *, limits: Limits) -> Volume:
    """Read one series, one file a slice, in any order: float32 [x, y, z], affine in mm RAS+, with its modality.

    x runs along the image's rows, y down its columns, z along the normal (the cross product of the two).
    Objects without an image (SEG, SR, ...) and files that are no DICOM are left out with a warning.

    Raises:
        ImagingError: the subclass says what keeps the files from being one box of slices.
    """
    headers = [header for path in paths if (header := _header(path)) is not None]
    images = [one for one in headers if "Rows" in one.dataset and "Columns" in one.dataset and _is_image(one.dataset)]
    if not images:
        raise NoDicomImagesError("there is no DICOM image among the files")
    _check_series(images)
    _check_size(images, limits=limits)
    first = images[0].dataset
    slices = stack([_slice(one) for one in images])
    array = np.empty((int(first.Columns), int(first.Rows), len(slices.order)), dtype=np.float32)
    for k, index in enumerate(slices.order):
        array[:, :, k] = _pixels(images[index].path).T
    if not np.isfinite(array).all():
        raise NonFiniteVoxelsError("the rescaled pixels hold NaN or infinite values")
    skipped = len(paths) - len(images)
    notes = (f"{skipped} files without an image were left out",) if skipped else ()
    return Volume(array, slices.affine, modality=str(first.get("Modality", "")) or None, warnings=notes)


@contextmanager
def _quietly() -> Iterator[None]:
    """What pydicom warns of is for people who write DICOM, and may name a patient."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@_quietly()
def _header(path: Path) -> _Header | None:
    """The data set up to its pixels; None where the file is not DICOM."""
    try:
        meta = read_file_meta_info(path)
        if meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage:
            raise DicomdirUnsupportedError("a DICOMDIR lists files and holds none: send the files themselves")
        if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:  # unpacks without a bound
            raise UndecodablePixelsError("deflated DICOM is not accepted")
        dataset = dcmread(path, stop_before_pixels=True, force=True)
    except (DicomdirUnsupportedError, UndecodablePixelsError):
        raise
    except Exception as error:  # pydicom raises whatever the bytes led it to
        raise NoDicomImagesError("a file is damaged: its DICOM header cannot be read") from error
    return _Header(path, dataset) if "SOPClassUID" in dataset else None


def _is_image(dataset: Dataset) -> bool:
    return str(dataset.get("Modality", "")) not in ("SEG", "SR", "RTSTRUCT", "RTDOSE", "PR", "KO")


def _check_series(images: Sequence[_Header]) -> None:
    datasets = [one.dataset for one in images]
    series = {str(one.get("SeriesInstanceUID", "")) for one in datasets}
    if len(series) > 1:
        raise MixedSeriesError(f"the files belong to {len(series)} series; send one")
    if any(_number(one, "NumberOfFrames", 1) > 1 for one in datasets):
        raise MultiframeUnsupportedError("multi-frame DICOM is not accepted yet")
    if any(
        _number(one, "SamplesPerPixel", 1) != 1 or one.get("PhotometricInterpretation") not in GREY for one in datasets
    ):
        raise UnsupportedPixelsError("the images are not greyscale")
    for keyword in ("Rows", "Columns", "FrameOfReferenceUID", "Modality"):
        if len({str(one.get(keyword, "")) for one in datasets}) > 1:
            raise MixedGeometryError(f"the slices differ in {keyword}")
    if len(images) < 2:
        raise SingleSliceError("a series has at least two slices")


def _check_size(images: Sequence[_Header], *, limits: Limits) -> None:
    first = images[0].dataset
    voxels = int(first.Rows) * int(first.Columns) * len(images)
    if voxels > limits.voxels:
        raise TooManyVoxelsError(f"the series has {voxels} voxels; at most {limits.voxels} are accepted")


@_quietly()
def _slice(header: _Header) -> Slice:
    dataset = header.dataset
    try:
        orientation = np.array([float(one) for one in dataset.ImageOrientationPatient])
        position = np.array([float(one) for one in dataset.ImagePositionPatient])
        spacing = np.array([float(one) for one in dataset.PixelSpacing])
        result = Slice(orientation, position, spacing)
    except (AttributeError, TypeError, ValueError) as error:
        raise MixedGeometryError("a slice does not say where it lies") from error
    if orientation.shape != (6,) or position.shape != (3,) or spacing.shape != (2,):
        raise MixedGeometryError("a slice does not say where it lies")
    return result


@_quietly()
def _pixels(path: Path) -> NDArray[np.float32]:
    """One slice (rows, columns), rescaled; MONOCHROME1, whose low values are bright, is turned round."""
    try:
        dataset = dcmread(path, force=True)
        pixels = np.asarray(dataset.pixel_array)
        values = apply_modality_lut(pixels, dataset).astype(np.float32)
    except Exception as error:  # decoders raise whatever the bytes led them to
        raise UndecodablePixelsError("the pixels of a slice cannot be decoded") from error
    if values.shape != (dataset.Rows, dataset.Columns):
        raise UndecodablePixelsError("a slice has other pixels than its header says")
    return -values if dataset.PhotometricInterpretation == "MONOCHROME1" else values


def _number(dataset: Any, keyword: str, default: int) -> int:
    try:
        return int(dataset.get(keyword) or default)
    except (TypeError, ValueError):
        return default
