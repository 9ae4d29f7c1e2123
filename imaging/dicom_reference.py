"""What an object that is derived from images repeats of them: patient, study, geometry, identifiers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from imaging.dicom_file import HEADER_BYTES, parsing, read_elements, tags_of, within
from imaging.dicom_geometry import Slice, stack
from imaging.dicom_header import STOPS, ImageHeader, read_header
from imaging.errors import CorruptFileError
from imaging.limits import Limits

DIGITS = 10
"""Of a number in a decimal string, which has room for 16 characters."""
REFERENCE_TAGS = tags_of(
    "SOPClassUID", "SOPInstanceUID", "Modality", "SeriesInstanceUID", "FrameOfReferenceUID", "ImagePositionPatient",
    "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel",
    "PhotometricInterpretation", "SpecificCharacterSet", "SliceThickness", "SpacingBetweenSlices",
    "PositionReferenceIndicator", "Laterality", "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate",
    "PatientSex", "PatientAge", "PatientSize", "PatientWeight", "StudyInstanceUID", "StudyID", "StudyDate", "StudyTime",
    "StudyDescription", "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip
MAY_BE_EMPTY = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate", "StudyTime",
    "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip
"""Of these, what must be there but may be empty (DICOM part 3, type 2): images without a patient leave them out."""


def read_reference(path: Path) -> Dataset:
    """What is repeated of one file. Of several frames it has each one's place, and what they share.

    Raises:
        ImagingError: its header cannot be read.
    """
    with parsing(CorruptFileError("the header of a DICOM file is damaged")), path.open("rb") as file:
        dataset = read_elements(within(file, HEADER_BYTES), REFERENCE_TAGS, stop=STOPS)
        for keyword in MAY_BE_EMPTY:
            if keyword not in dataset:
                setattr(dataset, keyword, None)
        if int(dataset.get("NumberOfFrames") or 1) > 1:
            header = read_header(path, limits=Limits())
            if isinstance(header, ImageHeader):
                _add_groups(dataset, [one.place for one in header.frames if one.place])
        return dataset


def _add_groups(dataset: Dataset, places: Sequence[Slice]) -> None:
    """Functional groups with nothing but geometry; it is shared wherever it is the same, whatever the file did."""
    step = float(np.linalg.norm(stack(places).affine[:3, 2]))
    measures, orientation, shared = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = _numbers(places[0].spacing), round(step, DIGITS)
    measures.SpacingBetweenSlices = round(step, DIGITS)
    orientation.ImageOrientationPatient = _numbers(places[0].orientation)
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = Items([measures]), Items([orientation])
    dataset.SharedFunctionalGroupsSequence = Items([shared])
    dataset.PerFrameFunctionalGroupsSequence = Items([_position(one) for one in places])


def _position(place: Slice) -> Dataset:
    position, groups = Dataset(), Dataset()
    position.ImagePositionPatient = _numbers(place.position)
    groups.PlanePositionSequence = Items([position])
    return groups


def _numbers(values: Sequence[float] | np.ndarray) -> list[float]:
    return [round(float(one), DIGITS) for one in values]
