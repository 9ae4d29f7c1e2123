"""One DICOM file of one slice: its header as plain values, then its pixels, each within a budget of bytes."""

from __future__ import annotations

import io
import logging
import re
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread, uid
from pydicom.encaps import get_frame
from pydicom.pixels.processing import apply_modality_lut
from pydicom.uid import UID, MediaStorageDirectoryStorage

from imaging.dicom_geometry import Slice
from imaging.errors import (
    CorruptFileError,
    DicomdirUnsupportedError,
    EmptyFileError,
    ImagingError,
    TruncatedFileError,
    UndecodablePixelsError,
    UnsupportedPixelsError,
)

# What pydicom logs quotes the values it does not like, and a name may be among them.
logging.getLogger("pydicom").setLevel(logging.CRITICAL)

PREAMBLE_BYTES = 128  # DICOM part 10, 7.1
MAGIC = b"DICM"
FIRST_GROUPS = (b"\x02\x00", b"\x08\x00", b"\x00\x02", b"\x00\x08")  # a data set without preamble, both endians
HEADER_BYTES = 8 << 20
"""Most that is read of a header. Values nobody asks for are skipped unread; a private sequence of a few MB is known."""
PIXEL_BYTES = 8  # of the widest pixel, a double float
OTHER_MODALITY = "OT"  # DICOM part 3, C.7.3.1.1.1: "other"
MODALITY = re.compile(r"[A-Z]{2,16}")
NO_IMAGE = ("SEG", "SR", "RTSTRUCT", "RTDOSE", "PR", "KO")
GREY = ("MONOCHROME1", "MONOCHROME2")
NATIVE = (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian)
J2K = (uid.JPEG2000Lossless, uid.JPEG2000, uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K)
JPEG = (
    uid.JPEGBaseline8Bit,
    uid.JPEGExtended12Bit,
    uid.JPEGLossless,
    uid.JPEGLosslessSV1,
    uid.JPEGLSLossless,
    uid.JPEGLSNearLossless,
)
JPEG_SCAN = 0xDA  # SOS: nothing after it changes the size
JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}  # SOF0-15, without tables, and that of JPEG-LS
J2K_START = b"\xff\x4f\xff\x51"  # SOC, SIZ
HEADER_TAGS = [
    "SOPClassUID",
    "Modality",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "PhotometricInterpretation",
]
REFERENCE_TAGS = [
    *HEADER_TAGS,
    "SpecificCharacterSet",
    "SOPInstanceUID",
    "SliceThickness",
    "SpacingBetweenSlices",
    "PositionReferenceIndicator",
    "Laterality",
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientSex",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "StudyInstanceUID",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "StudyDescription",
    "AccessionNumber",
    "ReferringPhysicianName",
]
"""What an object that is derived from an image repeats of it."""
MAY_BE_EMPTY = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "ReferringPhysicianName",
)
"""Of these, what must be there but may be empty (DICOM part 3, type 2): images without a patient leave them out."""
PIXEL_TAGS = [
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "ModalityLUTSequence",
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
    "FloatPixelData",
    "DoubleFloatPixelData",
    "PixelData",
]


@dataclass(frozen=True, eq=False)
class ImageHeader:
    """What is known of an image before its pixels are read; ``place`` is None where the file does not say it."""

    path: Path
    series: str
    frame_of_reference: str
    modality: str | None
    rows: int
    columns: int
    frames: int
    grey: bool
    place: Slice | None


class _Budget(io.RawIOBase):
    """A file that gives at most so many bytes; pydicom reads all that is left only to inflate it, without a bound."""

    def __init__(self, file: BinaryIO, left: int) -> None:
        self._file, self._left = file, left

    def read(self, size: int = -1, /) -> bytes:
        if size is None or size < 0:
            raise UndecodablePixelsError("deflated DICOM is not accepted")
        data = self._file.read(min(size, self._left + 1))
        self._left -= len(data)
        if self._left < 0:
            raise CorruptFileError("a DICOM file is larger than an image of its size can be")
        return data

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def is_dicom(path: Path) -> bool:
    """Return whether the file starts as DICOM does, with or without the preamble of part 10."""
    with path.open("rb") as file:
        head = file.read(PREAMBLE_BYTES + len(MAGIC))
    return head[PREAMBLE_BYTES:] == MAGIC or head[:2] in FIRST_GROUPS


def read_header(path: Path) -> ImageHeader | None:
    """The header of an image; None where the file is no DICOM or an object that has no image (SEG, SR, ...).

    Raises:
        EmptyFileError: no byte. A slice of which nothing arrived is not to be left out in silence.
        DicomdirUnsupportedError: the file is a DICOMDIR.
        TruncatedFileError, CorruptFileError: a DICOM file whose header cannot be read, or not to its end.
        UndecodablePixelsError: a deflated file.
    """
    if path.stat().st_size == 0:
        raise EmptyFileError("one of the files is empty")
    if not is_dicom(path):
        return None
    try:
        with _quietly():
            return _image_header(path, _dataset(path, HEADER_TAGS, limit=HEADER_BYTES, pixels=False))
    except ImagingError:
        raise
    except Exception:  # pydicom raises whatever the bytes led it to; its messages quote them
        raise CorruptFileError("the header of a DICOM file is damaged") from None


def read_tags(path: Path, tags: list[str]) -> Dataset:
    """These elements of a header, within the budget of one.

    Raises:
        CorruptFileError: the header cannot be read.
    """
    try:
        with _quietly():
            return _dataset(path, tags, limit=HEADER_BYTES, pixels=False)
    except ImagingError:
        raise
    except Exception:  # as in read_header
        raise CorruptFileError("the header of a DICOM file is damaged") from None


def read_reference(path: Path) -> Dataset:
    """What an object that is derived from an image repeats of it: patient, study, geometry, identifiers.

    Raises:
        CorruptFileError: its header cannot be read.
    """
    dataset = read_tags(path, REFERENCE_TAGS)
    for keyword in MAY_BE_EMPTY:
        if keyword not in dataset:
            setattr(dataset, keyword, None)
    return dataset


def read_pixels(header: ImageHeader) -> NDArray[np.float32]:
    """The slice (rows, columns) after rescaling; MONOCHROME1, whose low values are bright, changes its sign.

    Raises:
        UnsupportedPixelsError: a transfer syntax that is not accepted.
        UndecodablePixelsError: pixels that are missing, cut off or damaged, or of another size than the header's.
        CorruptFileError: far more bytes than such a slice can have.
    """
    limit = HEADER_BYTES + PIXEL_BYTES * header.rows * header.columns
    try:
        with _quietly():
            dataset = _dataset(header.path, PIXEL_TAGS, limit=limit, pixels=True)
            _check_encoding(dataset, header)
            values = apply_modality_lut(np.asarray(dataset.pixel_array), dataset).astype(np.float32)
    except ImagingError:
        raise
    except Exception:  # decoders raise whatever the bytes led them to
        raise UndecodablePixelsError("the pixels of a slice cannot be decoded") from None
    if values.shape != (header.rows, header.columns):
        raise UndecodablePixelsError("a slice has other pixels than its header says")
    return -values if dataset.PhotometricInterpretation == "MONOCHROME1" else values


@contextmanager
def _quietly() -> Iterator[None]:
    """What pydicom warns of is for people who write DICOM, and may name a patient."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _dataset(path: Path, tags: list[str], *, limit: int, pixels: bool) -> Dataset:
    """Read ``tags`` alone, so that a header of millions of elements takes no memory."""
    with path.open("rb") as file:
        dataset = dcmread(_Budget(file, limit), stop_before_pixels=not pixels, force=True, specific_tags=tags)
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little = dataset.original_encoding
        dataset.file_meta.TransferSyntaxUID = NATIVE[0 if implicit else 1 if little else 2]
    if "RescaleSlope" in dataset and "RescaleIntercept" not in dataset:
        dataset.RescaleIntercept = 0  # pydicom ignores a slope that stands alone
    return dataset


def _image_header(path: Path, dataset: Dataset) -> ImageHeader | None:
    kind = UID(str(dataset.get("SOPClassUID") or dataset.file_meta.get("MediaStorageSOPClassUID") or ""))
    if kind == MediaStorageDirectoryStorage:
        raise DicomdirUnsupportedError("a DICOMDIR lists files and holds none: send the files themselves")
    modality = str(dataset.get("Modality") or "")
    known_without_image = bool(kind.keyword) and "ImageStorage" not in kind.keyword
    if modality in NO_IMAGE or (known_without_image and "Rows" not in dataset):
        return None
    if "Rows" not in dataset or "Columns" not in dataset:
        raise TruncatedFileError("a DICOM file ends inside its header, or the header is damaged")
    return ImageHeader(
        path=path,
        series=str(dataset.get("SeriesInstanceUID", "")),
        frame_of_reference=str(dataset.get("FrameOfReferenceUID", "")),
        modality=_modality(modality),
        rows=int(dataset.Rows),
        columns=int(dataset.Columns),
        frames=int(dataset.get("NumberOfFrames") or 1),
        grey=int(dataset.get("SamplesPerPixel") or 1) == 1 and dataset.get("PhotometricInterpretation") in GREY,
        place=_place(dataset),
    )


def _modality(text: str) -> str | None:
    """A modality is repeated to people, so what is not written as one becomes "other"; None where the file has none."""
    return (text if MODALITY.fullmatch(text) else OTHER_MODALITY) if text else None


def _place(dataset: Dataset) -> Slice | None:
    try:
        orientation, position, spacing = (
            np.array([float(one) for one in dataset[keyword].value], dtype=np.float64)
            for keyword in ("ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing")
        )
    except (KeyError, TypeError, ValueError):
        return None
    if (orientation.shape, position.shape, spacing.shape) != ((6,), (3,), (2,)):
        return None
    return Slice(orientation, position, spacing)


def _check_encoding(dataset: Dataset, header: ImageHeader) -> None:
    """Refuse a compressed image that claims another size than the header: decoders allocate what it claims."""
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax in NATIVE or syntax == uid.RLELossless:
        return
    if syntax not in J2K and syntax not in JPEG:
        raise UnsupportedPixelsError("the pixels are encoded in a transfer syntax that is not accepted")
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    claims = [_j2k_size(frame)] if syntax in J2K else list(_jpeg_sizes(frame))
    if not claims or any(claim != (header.rows, header.columns, 1) for claim in claims):
        raise UndecodablePixelsError("the compressed pixels have another size than the header says")


def _j2k_size(frame: bytes) -> tuple[int, int, int]:
    """Rows, columns and components of a JPEG 2000 codestream (ISO 15444-1, A.5.1)."""
    if not frame.startswith(J2K_START):
        raise UndecodablePixelsError("the compressed pixels are no bare JPEG 2000 codestream")
    width, height, left, top = struct.unpack_from(">4I", frame, 8)
    (components,) = struct.unpack_from(">H", frame, 40)
    return height - top, width - left, components


def _jpeg_sizes(frame: bytes) -> Iterator[tuple[int, int, int]]:
    """Rows, columns and components of every frame header before the first scan (ISO 10918-1, B.2.2)."""
    at = 2
    while at + 10 <= len(frame) and frame[at] == 0xFF and frame[at + 1] != JPEG_SCAN:
        if frame[at + 1] == 0xFF:  # a fill byte
            at += 1
            continue
        if frame[at + 1] in JPEG_FRAMES:
            yield struct.unpack_from(">HHB", frame, at + 5)
        at += 2 + int.from_bytes(frame[at + 2 : at + 4])
