"""What the DICOM objects made of a result say of themselves."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal
from uuid import UUID, uuid5

from pydicom.dataset import Dataset
from pydicom.valuerep import DA, DT, TM

from imaging.errors import UnwritableError

NAMESPACE = UUID("8f4f4a2e-7f0a-5b39-9a52-0f5d3a1c64b7")
"""Of the identifiers made here; another would store the same result a second time."""
MAKER = "ncagate"
TITLE_CHARACTERS = 64  # of a LO, DICOM part 5, table 6.2-1
MARKS = {"accept": "ACCEPTED", "flag": "FLAGGED"}
"""Content label of each verdict; a flagged mask must not be mistaken for an accepted one."""


@dataclass(frozen=True)
class CodedSegment:
    """One segment: its value in the mask, its name, and its code (scheme "SCT" is SNOMED CT)."""

    label: int
    name: str
    scheme: str
    value: str
    meaning: str


@dataclass(frozen=True)
class About:
    """What the object says of itself.

    Attributes:
        identity: names the result; the same identity gives the same identifiers, so that a retry stores it again.
        created: when the result was asked for; every date in the object.
        model, version: what segmented.
        verdict: of the whole scan.
    """

    identity: str
    created: datetime
    model: str
    version: str
    verdict: Literal["accept", "flag"]

    def uid(self, what: str) -> str:
        """The identifier of one object of the result (DICOM part 5, B.2)."""
        return f"2.25.{uuid5(NAMESPACE, f'{self.identity} {what}').int}"

    @property
    def title(self) -> str:
        """Series description: the model, and first of all whether the mask was accepted."""
        return f"{MARKS[self.verdict]}: {MAKER} {self.model}"[:TITLE_CHARACTERS]

    def stamp(self, made: Dataset) -> None:
        """Put what highdicom takes from the clock under the result's time, so that a retry makes the same bytes."""
        date, time = DA(self.created.date()), TM(self.created.time())
        made.ContentDate = made.SeriesDate = made.InstanceCreationDate = date
        made.ContentTime = made.SeriesTime = made.InstanceCreationTime = time
        for equipment in made.ContributingEquipmentSequence:
            equipment.ContributionDateTime = DT(self.created)


@dataclass(frozen=True)
class MadeObject:
    """Identifiers of an object that was written."""

    study_uid: str
    series_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    modality: str


def save(made: Dataset, path: Path) -> MadeObject:
    """Write an object, and beside it, as ``.json``, its attributes without pixels (DICOM part 18, F.2)."""
    made.save_as(path, enforce_file_format=True)
    attributes = {f"{one.tag:08X}": one.to_json_dict(None, 0) for one in made if one.keyword != "PixelData"}
    path.with_suffix(".json").write_text(json.dumps(attributes, default=str))  # dates are objects
    return MadeObject(
        study_uid=str(made.StudyInstanceUID),
        series_uid=str(made.SeriesInstanceUID),
        sop_instance_uid=str(made.SOPInstanceUID),
        sop_class_uid=str(made.SOPClassUID),
        modality=str(made.Modality),
    )


@contextmanager
def writing(path: Path, what: str) -> Iterator[None]:
    """Turn whatever odd images lead to within into an `UnwritableError` without a word of theirs, and leave no file.

    What the file system refuses is not theirs, and passes.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of values in the images that DICOM does not allow, quoted
            yield
    except OSError:
        _remove(path)
        raise
    except Exception:  # pydicom and highdicom raise whatever the images led them to; their messages quote them
        _remove(path)
        detail = f"the images lack what a DICOM {what} has to repeat, or hold it in another form"
        raise UnwritableError(detail) from None


def _remove(path: Path) -> None:
    for one in (path, path.with_suffix(".json")):
        one.unlink(missing_ok=True)
