"""The elements of one DICOM file, read within a budget of bytes; whatever the bytes lead pydicom to, it stays here."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from pydicom import uid
from pydicom.dataset import FileDataset
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag, Tag

from imaging.errors import CorruptFileError, ImagingError

# What pydicom logs quotes the values it does not like, and a name may be among them.
logging.getLogger("pydicom").setLevel(logging.CRITICAL)

PREAMBLE_BYTES = 128  # DICOM part 10, 7.1
MAGIC = b"DICM"
FIRST_GROUPS = (b"\x02\x00", b"\x08\x00", b"\x00\x02", b"\x00\x08")  # a data set without preamble, both endians
NO_IMAGE = ("SEG", "SR", "RTSTRUCT", "RTDOSE", "PR", "KO")
PIXELS = {0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData", 0x7FE00010: "PixelData"}
"""Elements that end the header."""
HEADER_BYTES = 8 << 20
"""Most that is read of a header. Values nobody asks for are skipped unread; a private sequence of a few MB is known."""
NATIVE = (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian)


class _Budget(io.RawIOBase):
    """A file that gives at most so many bytes; pydicom reads all that is left only to inflate it, without a bound."""

    def __init__(self, file: BinaryIO, left: int) -> None:
        self._file, self._left = file, left
        self.tell = file.tell  # type: ignore[method-assign]  # as is: both are called for every element
        self.seek = file.seek  # type: ignore[method-assign]

    def read(self, size: int = -1, /) -> bytes:
        """Return at most ``size`` bytes; fewer are the end of the file."""
        if size is None or size < 0:
            raise CorruptFileError("a DICOM file is deflated without saying so in its first bytes")
        data = self._file.read(min(size, self._left + 1))
        self._left -= len(data)
        if self._left < 0:
            raise CorruptFileError("a DICOM file is larger than an image of its size can be")
        return data


def within(file: BinaryIO, left: int) -> BinaryIO:
    """``file`` from where it stands, of which at most ``left`` bytes are read; more raise CorruptFileError."""
    return cast(BinaryIO, _Budget(file, left))


def is_dicom(path: Path) -> bool:
    """Return whether the file starts as DICOM does, with or without the preamble of part 10."""
    with path.open("rb") as file:
        head = file.read(PREAMBLE_BYTES + len(MAGIC))
    return head[PREAMBLE_BYTES:] == MAGIC or head[:2] in FIRST_GROUPS


def tags_of(*keywords: str) -> list[BaseTag | int]:
    """The tags of these keywords, as pydicom wants them."""
    return [Tag(keyword) for keyword in keywords]


def read_elements(file: BinaryIO, tags: Sequence[BaseTag | int], *, stop: frozenset[int]) -> FileDataset:
    """Read ``tags`` alone, so that a header of millions of elements takes no memory, up to the first tag of ``stop``.

    ``file`` is left at that tag. The transfer syntax is put in where the file does not say it.
    """
    dataset = read_partial(file, stop_when=lambda tag, *_: tag in stop, force=True, specific_tags=[*tags])
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little = dataset.original_encoding
        dataset.file_meta.TransferSyntaxUID = NATIVE[0 if implicit else 1 if little else 2]
    return dataset


def read_tags(path: Path, *keywords: str) -> FileDataset:
    """These elements of a header, within the budget of one.

    Raises:
        CorruptFileError: the header cannot be read.
    """
    with parsing(CorruptFileError("the header of a DICOM file is damaged")), path.open("rb") as file:
        return read_elements(within(file, HEADER_BYTES), tags_of(*keywords), stop=frozenset(PIXELS))


@contextmanager
def parsing(refusal: ImagingError) -> Iterator[None]:
    """Turn whatever the bytes lead pydicom or a decoder to into ``refusal``, without a word of theirs.

    What they warn of is for people who write DICOM, and may name a patient. Want of memory is no fault of the bytes.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (ImagingError, MemoryError, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # a decoder in Rust panics with what is no Exception; messages quote the bytes
        if isinstance(error, OSError) and error.errno is not None:  # the file system's own
            raise
        raise refusal from None
