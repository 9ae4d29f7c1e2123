"""A DICOM object without the identity of its patient: the basic profile of DICOM part 15, E, with keyed identifiers.

The table is dicom-anonymizer's, the walk is our own: every item of every sequence is looked at, nothing of an original
stays in memory, and pixels are copied as they lie, neither read into memory nor decoded.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from functools import cache, lru_cache
from pathlib import Path
from typing import BinaryIO

from dicomanonymizer.dicomfields_selector import dicom_anonymization_database_selector
from pydicom.datadict import DicomDictionary, dictionary_has_tag, dictionary_VR, keyword_for_tag  # type: ignore[attr-defined]
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO, DicomFileLike
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_data_element, write_dataset, write_file_meta_info
from pydicom.sequence import Sequence as Items
from pydicom.tag import BaseTag

from imaging.dicom_deflated import inflate, is_deflated
from imaging.dicom_file import MAGIC, NATIVE, PIXELS, PREAMBLE_BYTES, parsing, read_elements, within
from imaging.dicom_header import element_at
from imaging.dicom_reference import REFERENCE_TAGS
from imaging.errors import CorruptFileError
from imaging.limits import Limits

EDITION = "dicomfields_2026c"
"""Of table E.1-1."""
HEADER_BYTES = 16 << 20
"""Most that is read of a header: elements to be removed are skipped unread. Frames take 2 to 3 kB each."""
CHUNK_BYTES = 1 << 20
UNDEFINED = 0xFFFFFFFF
ITEM, END = (0xFFFE, 0xE000), (0xFFFE, 0xE0DD)
STANDARD = "1.2.840.10008."
"""Root of the identifiers that the standard itself gives: they name kinds of things, and no patient."""
KINDS = ("SOPClass", "SOPClasses", "TransferSyntax", "CodingScheme", "ContextUID", "ContextGroup", "MappingResource")
"""In keywords of identifiers that name kinds of things, whoever gave them."""
NAMING = ("PN", "DA", "DT", "TM", "AE", "UN")
"""Kinds of values that are removed even where the table does not list their element."""
DUMMIES = {
    **dict.fromkeys(("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UT"), "REMOVED"),
    **dict.fromkeys(("DS", "IS", "FD", "FL", "SL", "SS", "UL", "US"), 0),
    "AS": "000Y", "DA": "19000101", "DT": "19000101000000", "TM": "000000",
}  # fmt: skip
METHOD = "DICOM PS3.15 basic profile 2026c"
CODE = ("113100", "DCM", "Basic Application Confidentiality Profile")
MARKS = (
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "DeidentificationMethodCodeSequence",
    "LongitudinalTemporalInformationModified",
)
"""What says that an object was stripped (DICOM part 15, E.1.1)."""


class Action(Enum):
    """What is done with an element. Where the table leaves a choice, as little stays as may."""

    REMOVE = "X"
    EMPTY = "Z"
    DUMMY = "D"
    UID = "U"
    WALK = "X/Z/U"  # of sequences: their identifiers are replaced


ACTIONS = {
    "X_TAGS": Action.REMOVE, "X_Z_TAGS": Action.REMOVE, "X_D_TAGS": Action.REMOVE, "X_Z_D_TAGS": Action.REMOVE,
    "Z_TAGS": Action.EMPTY, "Z_D_TAGS": Action.EMPTY, "D_TAGS": Action.DUMMY, "U_TAGS": Action.UID,
    "X_Z_U_STAR_TAGS": Action.WALK,
}  # fmt: skip


@dataclass(frozen=True)
class Stripped:
    """What was taken from an object.

    Attributes:
        uids: original identifiers by their replacements.
        values: what results repeat of the patient and the study, as it was, in the object's own encoding.
        implicit, little: that encoding.
    """

    uids: dict[str, str]
    values: bytes
    implicit: bool
    little: bool

    def dataset(self) -> Dataset:
        """The values."""
        return read_dataset(io.BytesIO(self.values), self.implicit, self.little)


def strip(path: Path, target: Path, *, replace_uid: Callable[[str], str]) -> Stripped:
    """Write the object to ``target`` without what identifies the patient, and return what was taken.

    The same bytes and replacements give the same bytes. A deflated object is written plain.

    Raises:
        CorruptFileError: its header cannot be read, or is larger than any that is accepted.
        TooManyBytesError, TruncatedFileError: of a deflated one.
    """
    damaged = CorruptFileError("the header of a DICOM file is damaged, or too large to be de-identified")
    if is_deflated(path):
        plain = target.with_suffix(".plain")
        try:
            inflate(path, plain, left=Limits().unpacked_bytes)
            return strip(plain, target, replace_uid=replace_uid)
        finally:
            plain.unlink(missing_ok=True)
    with parsing(damaged), path.open("rb") as file, target.open("xb") as out:
        dataset = read_elements(within(file, HEADER_BYTES), tags_read(), stop=frozenset(PIXELS))
        implicit, little = (bool(one) for one in dataset.original_encoding)
        values = _values(dataset, implicit=implicit, little=little)
        uids: dict[str, str] = {}
        _walk(dataset, _Replacer(replace_uid, uids))
        _mark(dataset)
        _write_header(out, dataset, implicit=implicit, little=little)
        _copy_pixels(file, out, implicit=implicit, little=little)
        return Stripped(uids, values, implicit, little)


@dataclass(frozen=True)
class _Replacer:
    """Replaces identifiers and remembers them."""

    make: Callable[[str], str]
    made: dict[str, str]

    def __call__(self, original: str) -> str:
        original = original.strip(" \0")
        if not original or original.startswith(STANDARD):
            return original
        new = self.make(original)
        self.made[new] = original
        return new


@cache
def _table() -> tuple[dict[int, Action], list[tuple[int, int, Action]]]:
    """Actions by tag, and (masked tag, mask, action) of repeating groups."""
    single, repeating = {}, []
    for name, tags in dicom_anonymization_database_selector(EDITION).items():
        for tag in tags if name in ACTIONS else ():
            number = tag[0] << 16 | tag[1]
            if len(tag) > 2:
                mask = tag[2] << 16 | tag[3]
                repeating.append((number & mask, mask, ACTIONS[name]))
            else:
                single[number] = ACTIONS[name]
    return single, repeating


@lru_cache(maxsize=4096)
def action_for(tag: BaseTag, vr: str) -> Action | None:
    """What is done with an element; None: it stays as it is, and of a sequence the items are looked at."""
    if tag.is_private or not dictionary_has_tag(tag):
        return Action.REMOVE
    single, repeating = _table()
    found = single.get(tag) or next((what for number, mask, what in repeating if tag & mask == number), None)
    if found is not None:
        return found
    if vr in NAMING:
        return Action.REMOVE
    return Action.UID if vr == "UI" and not any(one in keyword_for_tag(tag) for one in KINDS) else None


def _walk(dataset: Dataset, replace: _Replacer) -> None:
    for tag in [*dataset.keys()]:
        vr = _vr(dataset, tag)
        match action_for(tag, vr):
            case Action.REMOVE:
                del dataset[tag]
            case Action.UID if vr == "UI":
                dataset[tag].value = [replace(one) for one in _texts(dataset[tag])]
            case Action.EMPTY | Action.DUMMY | Action.UID as action:
                value = DUMMIES.get(vr) if action is Action.DUMMY else None
                dataset[tag] = DataElement(tag, vr, value if vr != "SQ" else Items())
            case _ if vr == "SQ" and isinstance(dataset[tag].value, Items):
                for item in dataset[tag].value:
                    _walk(item, replace)
            case _ if vr == "SQ":  # bytes that nothing is known of
                del dataset[tag]


def _vr(dataset: Dataset, tag: BaseTag) -> str:
    """The element's value representation; that of the dictionary where the file says none.

    What calls itself a sequence or does not, against the dictionary, cannot be looked into: it counts as unknown.
    """
    said = dataset.get_item(tag).VR
    if not dictionary_has_tag(tag):
        return "UN"
    known = dictionary_VR(tag)
    if said in (None, "UN"):
        return known
    return said if (said == "SQ") == (known == "SQ") else "UN"


def _texts(element: DataElement) -> list[str]:
    value = element.value
    return [str(one) for one in value] if element.VM > 1 else [str(value or "")]


def _values(dataset: Dataset, *, implicit: bool, little: bool) -> bytes:
    out = DicomBytesIO()
    out.is_implicit_VR, out.is_little_endian = implicit, little
    for tag in tags_taken():
        if tag in dataset:
            write_data_element(out, dataset.get_item(tag))
    return out.getvalue()


@cache
def tags_taken() -> tuple[BaseTag, ...]:
    """What results would repeat, and stripping takes; and the characters that it is written in."""
    return tuple(sorted(_taken()))


@cache
def tags_read() -> tuple[BaseTag, ...]:
    """What stays in some form, and what is taken; the rest of a header, however much it is, is not looked at."""
    every = ((BaseTag(tag), entry[0]) for tag, entry in DicomDictionary.items())
    return (*tags_taken(), *(tag for tag, vr in every if action_for(tag, vr) is not Action.REMOVE))


def _taken() -> Iterator[BaseTag]:
    for tag in map(BaseTag, REFERENCE_TAGS):
        action = action_for(tag, dictionary_VR(tag))
        if keyword_for_tag(tag) == "SpecificCharacterSet" or (action is not None and action is not Action.UID):
            yield tag


def _mark(dataset: Dataset) -> None:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = CODE
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = METHOD
    dataset.DeidentificationMethodCodeSequence = Items([code])
    dataset.LongitudinalTemporalInformationModified = "REMOVED"


def _write_header(out: BinaryIO, dataset: FileDataset, *, implicit: bool, little: bool) -> None:
    """A new preamble and meta information: the old ones have room for whatever a sender puts there."""
    native = NATIVE[0 if implicit else 1 if little else 2]
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    meta.TransferSyntaxUID = dataset.file_meta.get("TransferSyntaxUID", native)
    out.write(bytes(PREAMBLE_BYTES) + MAGIC)
    file = DicomFileLike(out)
    write_file_meta_info(file, meta)
    file.is_implicit_VR, file.is_little_endian = implicit, little
    for tag in [*dataset.keys()]:
        if not implicit and dataset.get_item(tag).VR is None:  # a file that changes its mind
            dataset[tag]  # finds it out
    write_dataset(file, dataset)


def _copy_pixels(file: BinaryIO, out: BinaryIO, *, implicit: bool, little: bool) -> None:
    """The element of pixels that ``file`` stands at, as it is, and nothing of what comes after."""
    start = file.tell()
    element = element_at(file, implicit=implicit, little=little)
    if element is None:
        return
    head = file.tell() - start
    file.seek(start)
    _copy(file, out, head)
    if element[2] != UNDEFINED:
        _copy(file, out, element[2])
        return
    order = "<" if little else ">"
    while len(item := file.read(8)) == 8:
        group, number, length = struct.unpack(f"{order}HHL", item)
        out.write(item)
        if (group, number) == END:
            return
        if (group, number) != ITEM:
            raise CorruptFileError("the compressed pixels of a DICOM file are damaged")
        _copy(file, out, length)


def _copy(file: BinaryIO, out: BinaryIO, count: int) -> None:
    """So many bytes, or what there is: that pixels are cut off is for the reader to find."""
    while count > 0 and (chunk := file.read(min(count, CHUNK_BYTES))):
        out.write(chunk)
        count -= len(chunk)
