"""Deflated DICOM (part 5, A.5) unpacked into a plain file, as far as a budget of bytes goes: 612 kB may hold 1.2 GB."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from pydicom.dataset import FileMetaDataset
from pydicom.filebase import DicomFileLike
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from imaging.dicom_file import MAGIC, PREAMBLE_BYTES, parsing
from imaging.errors import CorruptFileError, TooManyBytesError, TruncatedFileError

LENGTH = b"\x02\x00\x00\x00UL\x04\x00"  # the first element, which tells how long the meta information is (7.1)
META_BYTES = 64 << 10  # far more than its dozen of short elements
CHUNK_BYTES = 1 << 16


def is_deflated(path: Path) -> bool:
    """Return whether the file says that what follows its meta information is deflated."""
    with path.open("rb") as file:
        return _meta(file) is not None


def inflate(path: Path, target: Path, *, left: int) -> int:
    """Write a deflated file to ``target`` as the plain one it was made of, and return its bytes, at most ``left``.

    Raises:
        TooManyBytesError: there are more.
        TruncatedFileError, CorruptFileError: the stream ends too early, or is none.
    """
    with path.open("rb") as file, target.open("xb") as plain:
        for chunk in _plain(file):
            if plain.tell() + len(chunk) > left:
                raise TooManyBytesError("the deflated DICOM files unpack to too many bytes")
            plain.write(chunk)
        return plain.tell()


def inflated_head(path: Path, size: int) -> BinaryIO:
    """The first bytes of the plain file that a deflated one was made of, ``size`` of them or a few more.

    Raises:
        TruncatedFileError, CorruptFileError: as `inflate`.
    """
    head = io.BytesIO()
    with path.open("rb") as file:
        for chunk in _plain(file):
            head.write(chunk)
            if head.tell() >= size:
                break
    head.seek(0)
    return head


def _plain(file: BinaryIO) -> Iterator[bytes]:
    """Yield the plain file: its meta information, which names another transfer syntax, and what was deflated."""
    meta = _meta(file)
    if meta is None:
        raise CorruptFileError("a DICOM file is not deflated")
    head = io.BytesIO()
    with parsing(CorruptFileError("the header of a DICOM file is damaged")):
        elements = FileMetaDataset(read_dataset(io.BytesIO(meta), False, True))
        elements.TransferSyntaxUID = ExplicitVRLittleEndian
        head.write(bytes(PREAMBLE_BYTES) + MAGIC)
        write_file_meta_info(DicomFileLike(head), elements, enforce_standard=False)
    yield head.getvalue()
    yield from _inflated(file)


def _meta(file: BinaryIO) -> bytes | None:
    """The meta information's elements but the first, where they name this transfer syntax; ``file`` is then behind."""
    head = file.read(PREAMBLE_BYTES + len(MAGIC) + len(LENGTH) + 4)
    if head[PREAMBLE_BYTES:-4] != MAGIC + LENGTH:
        return None
    meta = file.read(min(int.from_bytes(head[-4:], "little"), META_BYTES))
    return meta if DeflatedExplicitVRLittleEndian.encode() in meta else None


def _inflated(file: BinaryIO) -> Iterator[bytes]:
    """Yield what the stream holds, at most 64 KiB at once."""
    stream, packed = zlib.decompressobj(-zlib.MAX_WBITS), b""
    while not stream.eof:
        packed = packed or file.read(CHUNK_BYTES)
        if not packed:
            raise TruncatedFileError("a deflated DICOM file ends too early")
        try:
            chunk = stream.decompress(packed, CHUNK_BYTES)
        except zlib.error:
            raise CorruptFileError("a deflated DICOM file is damaged") from None
        packed = stream.unconsumed_tail
        yield chunk
