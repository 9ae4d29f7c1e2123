"""What an image says of itself before its pixels are read: its series, its frames, where each lies."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from pydicom.dataset import Dataset, FileDataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag
from pydicom.uid import UID, MediaStorageDirectoryStorage

from imaging.dicom_file import HEADER_BYTES, NO_IMAGE, PIXELS, is_dicom, parsing, read_elements, tags_of, within
from imaging.dicom_frames import PER_FRAME, SHARED, UNDEFINED, Frame, frame_of, frame_of_groups, read_items
from imaging.errors import (
    CorruptFileError,
    EmptyFileError,
    ImagingError,
    MultiframeUnsupportedError,
    TooManyFilesError,
    TooManyVoxelsError,
    TruncatedFileError,
    UnsupportedPixelsError,
)
from imaging.limits import Limits

OTHER_MODALITY = "OT"  # DICOM part 3, C.7.3.1.1.1: "other"
MODALITY = re.compile(r"[A-Z]{2,16}")
GREY = ("MONOCHROME1", "MONOCHROME2")
STOPS = frozenset({SHARED, PER_FRAME, *PIXELS})
LONG_LENGTHS = (b"SQ", b"OB", b"OW", b"OF", b"OD", b"UN")  # DICOM part 5, 7.1.2: of sequences and of pixels
FRAME_BYTES = 64 << 10
"""Most that is read of the functional groups of one frame; they take about 2 kB."""
HEADER_TAGS = tags_of(
    "SOPClassUID", "Modality", "SeriesInstanceUID", "FrameOfReferenceUID", "ImagePositionPatient",
    "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel",
    "PhotometricInterpretation", "BitsAllocated", "BitsStored", "PixelRepresentation", "RescaleSlope",
    "RescaleIntercept", "ModalityLUTSequence",
)  # fmt: skip
DICOMDIR = "DICOMDIR"
OFFSET_TAGS = tags_of("ExtendedOffsetTable", "ExtendedOffsetTableLengths")


@dataclass(frozen=True, eq=False)
class Pixels:
    """How an image's pixels are stored.

    Attributes:
        keyword, vr: of the element that holds them.
        offset, length: of its value, in bytes; encapsulated pixels have no length.
        has_table: whether values are looked up in a table (modality LUT) in place of rescaled.
        offsets: of encapsulated frames, where a table says them.
    """

    syntax: UID
    keyword: str
    vr: str
    offset: int
    length: int | None
    photometric: str
    bits_allocated: int
    bits_stored: int
    signed: bool
    has_table: bool
    offsets: tuple[bytes, bytes] | None


@dataclass(frozen=True, eq=False)
class ImageHeader:
    """What is known of an image before its pixels are read.

    ``refusal`` is what keeps it from being slices of a scan, as far as its header tells: such an image is in nobody's
    way as long as another series is wanted. ``frames`` are ``count``, or none where there is a refusal; ``pixels`` is
    None where the file holds none.
    """

    path: Path
    series: str
    frame_of_reference: str
    modality: str | None
    rows: int
    columns: int
    count: int
    frames: tuple[Frame, ...]
    pixels: Pixels | None
    refusal: ImagingError | None


@dataclass(frozen=True)
class NoImage:
    """A file without an image; ``kind`` is its modality ("SEG", "SR", ...), or says in words what it is."""

    kind: str


NO_DICOM = NoImage("not DICOM")


def read_header(path: Path, *, limits: Limits) -> ImageHeader | NoImage:
    """The header of an image, with all its frames.

    Raises:
        EmptyFileError: no byte. A slice of which nothing arrived is not to be left out in silence.
        TruncatedFileError, CorruptFileError: a DICOM file whose header cannot be read, or not to its end.
    """
    if path.stat().st_size == 0:
        raise EmptyFileError("one of the files is empty")
    if not is_dicom(path):
        return NO_DICOM
    with parsing(CorruptFileError("the header of a DICOM file is damaged")), path.open("rb") as file:
        dataset = read_elements(within(file, HEADER_BYTES), HEADER_TAGS, stop=STOPS)
        kind = _kind_without_image(dataset)
        if kind is not None:
            return NoImage(kind)
        if "Rows" not in dataset or "Columns" not in dataset:
            raise TruncatedFileError("a DICOM file ends inside its header, or the header is damaged")
        return _image_header(path, file, dataset, limits)


def _kind_without_image(dataset: FileDataset) -> str | None:
    kind = UID(str(dataset.get("SOPClassUID") or dataset.file_meta.get("MediaStorageSOPClassUID") or ""))
    if kind == MediaStorageDirectoryStorage:
        return DICOMDIR
    modality = _modality(dataset)
    known_without_image = bool(kind.keyword) and "ImageStorage" not in kind.keyword
    if modality in NO_IMAGE or (known_without_image and "Rows" not in dataset):
        return modality or OTHER_MODALITY
    return None


def _modality(dataset: Dataset) -> str | None:
    """A modality is repeated to people, so what is not written as one becomes "other"; None where the file has none."""
    text = str(dataset.get("Modality") or "")
    return (text if MODALITY.fullmatch(text) else OTHER_MODALITY) if text else None


def _image_header(path: Path, file: BinaryIO, dataset: FileDataset, limits: Limits) -> ImageHeader:
    rows, columns, count = int(dataset.Rows), int(dataset.Columns), int(dataset.get("NumberOfFrames") or 1)
    refusal = _refusal(dataset, count=count, voxels=rows * columns * count, limits=limits)
    frames, pixels = ([], None) if refusal else _rest(file, dataset, count)
    if refusal is None and len(frames) != count:
        refusal = MultiframeUnsupportedError("the frames of a multi-frame DICOM file do not say where they lie")
    return ImageHeader(
        path=path,
        series=str(dataset.get("SeriesInstanceUID", "")),
        frame_of_reference=str(dataset.get("FrameOfReferenceUID", "")),
        modality=_modality(dataset),
        rows=rows,
        columns=columns,
        count=count,
        frames=tuple(frames),
        pixels=pixels,
        refusal=refusal,
    )


def _refusal(dataset: Dataset, *, count: int, voxels: int, limits: Limits) -> ImagingError | None:
    if int(dataset.get("SamplesPerPixel") or 1) != 1 or dataset.get("PhotometricInterpretation") not in GREY:
        return UnsupportedPixelsError("the images are not greyscale")
    if count > limits.files:
        return TooManyFilesError(f"a multi-frame DICOM file has more than {limits.files} frames")
    if voxels > limits.voxels:
        return TooManyVoxelsError(f"an image has {voxels} voxels; at most {limits.voxels} are accepted")
    return None


def _rest(file: BinaryIO, dataset: FileDataset, count: int) -> tuple[list[Frame], Pixels | None]:
    """The image's frames, one more than ``count`` at most, and its pixels' place, from where ``file`` stands."""
    source = within(file, HEADER_BYTES + FRAME_BYTES * count)
    implicit, little = (bool(one) for one in dataset.original_encoding)
    frames, shared, tables = [frame_of(dataset)], Dataset(), Dataset()
    while (element := element_at(source, implicit=implicit, little=little)) is not None:
        tag, _, length = element
        if tag in PIXELS:
            return frames, _pixels(dataset, element, file.tell(), tables)
        items = read_items(source, length, implicit=implicit, little=little)
        if tag == SHARED:
            shared = next(items, shared)
        else:
            frames = [frame_of_groups(item, shared, dataset) for item in islice(items, count + 1)]
        tables.update(read_dataset(source, implicit, little, stop_when=_at_a_stop, specific_tags=OFFSET_TAGS))
    return frames, None


def _at_a_stop(tag: BaseTag, vr: str | None, length: int) -> bool:
    return tag in STOPS


def element_at(source: BinaryIO, *, implicit: bool, little: bool) -> tuple[int, str, int] | None:
    """Tag, value representation and length of the element that starts here; None at the end of the file.

    Its value comes next.
    """
    head = source.read(8)
    if len(head) < 8:
        return None
    order = "<" if little else ">"
    group, number, vr, length = struct.unpack(f"{order}HH2sH", head)
    if not implicit and vr in LONG_LENGTHS:
        (length,) = struct.unpack(f"{order}L", source.read(4))
    elif implicit or not (vr.isalpha() and vr.isupper()):  # as pydicom does with files that change their mind
        (length,) = struct.unpack(f"{order}L", head[4:])
    return group << 16 | number, "OW" if implicit else vr.decode("latin-1"), length


def _pixels(dataset: FileDataset, element: tuple[int, str, int], offset: int, tables: Dataset) -> Pixels:
    tag, vr, length = element
    offsets = [tables.get(keyword) for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")]
    allocated = int(dataset.get("BitsAllocated") or 0)
    return Pixels(
        syntax=dataset.file_meta.TransferSyntaxUID,
        keyword=PIXELS[tag],
        vr=vr,
        offset=offset,
        length=None if length == UNDEFINED else length,
        photometric=str(dataset.PhotometricInterpretation),
        bits_allocated=allocated,
        bits_stored=int(dataset.get("BitsStored") or allocated),
        signed=bool(dataset.get("PixelRepresentation")),
        has_table="ModalityLUTSequence" in dataset,
        offsets=(offsets[0], offsets[1]) if all(offsets) else None,
    )
