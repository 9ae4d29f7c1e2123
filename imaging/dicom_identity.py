"""What a DICOM object is and belongs to, read from its header alone: no pixel is touched."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import FileDataset
from pydicom.uid import UID, MediaStorageDirectoryStorage

from imaging.dicom_deflated import inflated_head, is_deflated
from imaging.dicom_file import (
    HEADER_BYTES,
    NO_IMAGE,
    PIXELS,
    is_dicom,
    parsing,
    read_elements,
    read_tags,
    tags_of,
    within,
)
from imaging.errors import CorruptFileError, DicomdirUnsupportedError, UnknownFormatError

IDENTITY_TAGS = [
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "Modality",
    "BodyPartExamined",
    "SeriesDescription",
]
UID_FORM = re.compile(r"[0-9][0-9.]{0,63}")  # DICOM part 5, 9.1; leading zeros are forbidden, and exist

VALUE_CHARACTERS = 64  # of a LO, DICOM part 5, table 6.2-1


@dataclass(frozen=True)
class Identity:
    """Identifiers of an object, and what routes look at; a value that is absent is empty."""

    sop_class: str
    instance: str
    study: str
    series: str
    modality: str
    body_part: str
    series_description: str

    @property
    def image(self) -> bool:
        """Whether objects of this kind are images."""
        return self.modality not in NO_IMAGE and "ImageStorage" in (UID(self.sop_class).keyword or "ImageStorage")


def read_identity(path: Path) -> Identity:
    """The identity of a DICOM object.

    Raises:
        UnknownFormatError: no DICOM.
        DicomdirUnsupportedError: an index of files.
        CorruptFileError: a header that cannot be read, or without the identifiers that every object has.
    """
    if not is_dicom(path):
        raise UnknownFormatError("no DICOM object")
    dataset = _tags(path)
    if dataset.get("SOPClassUID", dataset.file_meta.get("MediaStorageSOPClassUID")) == MediaStorageDirectoryStorage:
        raise DicomdirUnsupportedError("a DICOMDIR lists files and holds none: send the files themselves")
    sop_class, instance, study, series, *rest = (str(dataset.get(keyword) or "") for keyword in IDENTITY_TAGS)
    identifiers = (sop_class, instance, study, series)
    if not all(UID_FORM.fullmatch(one) for one in identifiers):
        raise CorruptFileError("the object lacks an identifier that every DICOM object has, or it is malformed")
    return Identity(*identifiers, *(one.strip()[:VALUE_CHARACTERS] for one in rest))


def _tags(path: Path) -> FileDataset:
    if not is_deflated(path):
        return read_tags(path, *IDENTITY_TAGS)
    with parsing(CorruptFileError("the header of a deflated DICOM file is damaged")):
        head = inflated_head(path, HEADER_BYTES)
        return read_elements(within(head, HEADER_BYTES), tags_of(*IDENTITY_TAGS), stop=frozenset(PIXELS))
