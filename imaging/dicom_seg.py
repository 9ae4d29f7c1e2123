"""A mask as a DICOM Segmentation object (DICOM part 3, A.51) over the series that it was drawn on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import highdicom as hd
import numpy as np
from highdicom.seg import Segmentation, SegmentDescription
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian

from imaging.dicom_about import MAKER, MARKS, TITLE_CHARACTERS, About, CodedSegment, MadeObject, save, writing
from imaging.dicom_file import read_reference
from imaging.errors import UnwritableError

SERIES_NUMBER = 9001
"""Above what scanners give, so that the result is listed after the images."""


def write_segmentation(
    path: Path, labels: NDArray[np.uint8], *, source: Sequence[Path], segments: Sequence[CodedSegment], about: About
) -> MadeObject:
    """Write ``labels`` (x, y, z) as a BINARY segmentation of the images in ``source``.

    ``source`` are the series' files, one a slice, in the order of z; x runs along their rows, y down their columns,
    as `imaging.dicom_series.read_dicom_series` gives them. The object refers to each of them and shares their frame of
    reference, study and patient. Frames without a voxel are left out.

    Raises:
        UnwritableError: the mask is empty, or the images lack what such an object has to repeat.
    """
    if not labels.any():
        raise UnwritableError("the mask is empty, and a DICOM SEG has at least one frame")
    with writing(path, "SEG"):
        images = [read_reference(one) for one in source]
        return save(_segmentation(_numbered(labels, segments), images, segments, about), path)


def _numbered(labels: NDArray[np.uint8], segments: Sequence[CodedSegment]) -> NDArray[np.uint8]:
    """(z, y, x): frames of rows and columns, with the segments' numbers 1, 2, ... in place of their labels."""
    numbers = np.zeros(256, np.uint8)
    for number, segment in enumerate(segments, start=1):
        numbers[segment.label] = number
    return numbers[labels].transpose(2, 1, 0)


def _segmentation(
    frames: NDArray[np.uint8], images: Sequence[Dataset], segments: Sequence[CodedSegment], about: About
) -> Segmentation:
    made = Segmentation(
        source_images=images,
        pixel_array=frames,
        segmentation_type="BINARY",
        segment_descriptions=[_description(number, one, about) for number, one in enumerate(segments, start=1)],
        series_instance_uid=about.uid("segmentation series"),
        series_number=SERIES_NUMBER,
        sop_instance_uid=about.uid("segmentation"),
        instance_number=1,
        manufacturer=MAKER,
        manufacturer_model_name=about.model,
        software_versions=about.version,
        device_serial_number=about.version,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        content_label=MARKS[about.verdict],
        content_description=about.title,
        series_description=about.title,
    )
    about.stamp(made)
    organisation = about.uid("dimensions")  # highdicom draws one
    for one in (*made.DimensionOrganizationSequence, *made.DimensionIndexSequence):
        one.DimensionOrganizationUID = organisation
    return made


def _description(number: int, segment: CodedSegment, about: About) -> SegmentDescription:
    return SegmentDescription(
        segment_number=number,
        segment_label=segment.name[:TITLE_CHARACTERS],
        segmented_property_category=codes.SCT.AnatomicalStructure,
        segmented_property_type=hd.sr.CodedConcept(segment.value, segment.scheme, segment.meaning),
        algorithm_type="AUTOMATIC",
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=f"{MAKER} {about.model}"[:TITLE_CHARACTERS],
            family=codes.DCM.ArtificialIntelligence,
            version=about.version,
        ),
        tracking_uid=about.uid(f"segment {number}"),
        tracking_id=f"{about.model} {segment.name}"[:TITLE_CHARACTERS],
    )
