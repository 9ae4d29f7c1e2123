"""Which one of the series that came together is the scan."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from imaging.dicom_geometry import Slice, Stack, stack
from imaging.dicom_header import ImageHeader
from imaging.errors import (
    ImagingError,
    MixedGeometryError,
    MixedSeriesError,
    SeriesNotFoundError,
    SingleSliceError,
    TooManyVoxelsError,
)
from imaging.limits import Limits
from imaging.request import Wanted

LISTED = 20
"""Series named in a refusal; an archive of a hundred studies is a mistake of another kind."""
IDENTIFIER = re.compile(r"[0-9.]{1,64}")  # DICOM part 5, 9.1; anything else might be a name


@dataclass(frozen=True, eq=False)
class Series:
    """Images that belong together, and how their frames lie: each frame's image and number, in any order."""

    images: list[ImageHeader]
    frames: list[tuple[ImageHeader, int]]
    stack: Stack


def choose(images: Sequence[ImageHeader], wanted: Wanted, *, limits: Limits) -> tuple[Series, tuple[str, ...]]:
    """The series that is the scan, and what to say of the others.

    Raises:
        SeriesNotFoundError: none has the identifier.
        MixedSeriesError: several came, and not exactly one is of the wanted modality and fills a box.
        ImagingError: the only one, or the one asked for, does not fill a box.
    """
    groups: dict[str, list[ImageHeader]] = {}
    for image in images:
        groups.setdefault(image.series, []).append(image)
    if wanted.series is not None:
        if wanted.series not in groups:
            raise SeriesNotFoundError(f"none of the files belongs to that series; there are {_listed(groups)}")
        return arrange(groups[wanted.series], limits=limits), _others(len(groups) - 1)
    if len(groups) == 1:
        return arrange(groups.popitem()[1], limits=limits), ()
    fitting = [one for one in (_fitting(group, wanted, limits) for group in groups.values()) if one is not None]
    if len(fitting) != 1:
        which = "several of them fit" if fitting else "none of them fits"
        raise MixedSeriesError(
            f"the files belong to {len(groups)} series and {which}: send one or name it; there are {_listed(groups)}"
        )
    return fitting[0], _others(len(groups) - 1)


def arrange(images: list[ImageHeader], *, limits: Limits) -> Series:
    """The frames of one series as a box.

    Raises:
        ImagingError: the subclass says what keeps them from being one.
    """
    for image in images:
        if image.refusal is not None:
            raise image.refusal
    for name in ("rows", "columns", "frame_of_reference", "modality"):
        if len({getattr(one, name) for one in images}) > 1:
            raise MixedGeometryError(f"the slices differ in their {name.replace('_', ' ')}")
    frames = [(image, number) for image in images for number in range(image.count)]
    if len(frames) < 2:
        raise SingleSliceError("a series has at least two slices")
    voxels = images[0].rows * images[0].columns * len(frames)
    if voxels > limits.voxels:
        raise TooManyVoxelsError(f"the series has {voxels} voxels; at most {limits.voxels} are accepted")
    return Series(images, frames, stack([_place(image, number) for image, number in frames]))


def _place(image: ImageHeader, number: int) -> Slice:
    place = image.frames[number].place
    if place is None:
        raise MixedGeometryError("a slice does not say where it lies")
    return place


def _fitting(images: list[ImageHeader], wanted: Wanted, limits: Limits) -> Series | None:
    modality = images[0].modality
    if wanted.modalities and modality is not None and modality not in wanted.modalities:
        return None
    try:
        return arrange(images, limits=limits)
    except ImagingError:
        return None


def _others(count: int) -> tuple[str, ...]:
    return (f"{count} other series left out.",) if count else ()


def _listed(groups: dict[str, list[ImageHeader]]) -> str:
    """The series as people choose among them; of their headers nothing but what names nobody."""
    said = [_described(series, images) for series, images in list(groups.items())[:LISTED]]
    more = len(groups) - len(said)
    return ", ".join(said) + (f", and {more} more" if more else "")


def _described(series: str, images: list[ImageHeader]) -> str:
    name = series if IDENTIFIER.fullmatch(series) else "one without an identifier"
    count = sum(one.count for one in images)
    return f"{name} ({images[0].modality or 'no modality'}, {count} image{'s' if count > 1 else ''})"
