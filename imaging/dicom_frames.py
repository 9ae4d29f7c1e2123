"""The frames of a DICOM image: where each lies and how its values are rescaled, of one slice a file or of many."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.filereader import read_sequence_item

from imaging.dicom_geometry import Slice

SHARED, PER_FRAME = 0x52009229, 0x52009230
"""Functional groups (DICOM part 3, C.7.6.16): what all frames have in common, and what each has for itself."""
UNDEFINED = 0xFFFFFFFF  # a length that only a delimiter tells (DICOM part 5, 7.1.1)
CHARACTERS = "iso8859"  # of texts in a group; none of them is used


@dataclass(frozen=True, eq=False)
class Frame:
    """One plane: ``place`` is None where the file does not say it; a value is ``slope * stored + intercept``."""

    place: Slice | None
    slope: float
    intercept: float


def read_items(source: BinaryIO, length: int, *, implicit: bool, little: bool) -> Iterator[Dataset]:
    """Yield the items of the sequence whose value starts here, each parsed when its turn comes.

    A sequence of thousands of items would take hundreds of MB at once.
    """
    start = source.tell()
    while length == UNDEFINED or source.tell() - start < length:
        item = read_sequence_item(source, implicit, little, CHARACTERS)
        if item is None:
            return
        yield item


def frame_of(image: Dataset) -> Frame:
    """The only frame of an image without functional groups (DICOM part 3, C.7.6.2)."""
    return Frame(_place([image], [image], [image]), *_rescaling(image))


def frame_of_groups(own: Dataset, shared: Dataset, image: Dataset) -> Frame:
    """A frame of an enhanced image: what its ``own`` groups do not say is said by the ``shared`` ones.

    The rescaling may stand in the image itself.
    """
    groups = (own, shared)
    place = _place(
        _macro(groups, "PlaneOrientationSequence"),
        _macro(groups, "PlanePositionSequence"),
        _macro(groups, "PixelMeasuresSequence"),
    )
    return Frame(place, *_rescaling(*_macro(groups, "PixelValueTransformationSequence"), image))


def _macro(groups: Sequence[Dataset], keyword: str) -> list[Dataset]:
    """The macro's only item, of the first group that has it."""
    return [group[keyword].value[0] for group in groups if group.get(keyword)][:1]


def _place(orientations: Sequence[Dataset], positions: Sequence[Dataset], measures: Sequence[Dataset]) -> Slice | None:
    try:
        orientation = _numbers(orientations, "ImageOrientationPatient")
        position = _numbers(positions, "ImagePositionPatient")
        spacing = _numbers(measures, "PixelSpacing")
    except (IndexError, KeyError, TypeError, ValueError):
        return None
    if (orientation.shape, position.shape, spacing.shape) != ((6,), (3,), (2,)):
        return None
    return Slice(orientation, position, spacing)


def _numbers(holders: Sequence[Dataset], keyword: str) -> NDArray[np.float64]:
    return np.array([float(one) for one in holders[0][keyword].value], dtype=np.float64)


def _rescaling(*holders: Dataset) -> tuple[float, float]:
    """Slope and intercept of the first holder that has either; one that stands alone counts."""
    for one in holders:
        slope, intercept = one.get("RescaleSlope"), one.get("RescaleIntercept")
        if slope is not None or intercept is not None:
            return 1.0 if slope is None else float(slope), 0.0 if intercept is None else float(intercept)
    return 1.0, 0.0
