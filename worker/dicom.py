"""A result as DICOM objects: the mask as SEG, the verdict as SR."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from imaging.errors import UnwritableError
from imaging.volume import Volume
from model_store.manifest import Manifest
from worker.record import Origin, StructureRecord, worst_of

if TYPE_CHECKING:
    from imaging.dicom_about import CodedSegment
    from imaging.dicom_sr import Finding


@dataclass(frozen=True)
class DicomNames:
    """Where the objects are written."""

    segmentation: Path
    report: Path


@dataclass(frozen=True)
class DicomResult:
    """What was written: the identifiers of each object with the artefact that it is, and what could not be, and why."""

    objects: tuple[dict[str, str], ...] = ()
    warnings: tuple[str, ...] = ()


def write_dicom(
    volume: Volume,
    labels: NDArray[np.uint8],
    records: Sequence[StructureRecord],
    *,
    manifest: Manifest,
    origin: Origin,
    names: DicomNames,
) -> DicomResult:
    """Write SEG and SR of a scan that came as DICOM; warnings say what could not be written, and why.

    ``labels`` is the mask (x, y, z) on the scan's own grid. Of a scan that came otherwise nothing is written.
    """
    if not volume.source:
        return DicomResult()
    # imported late: highdicom takes a second, which a worker that sees only NIfTI need not spend
    from imaging.dicom_about import About
    from imaging.dicom_seg import write_segmentation
    from imaging.dicom_sr import write_report

    verdict = worst_of(records).verdict
    about = About(origin.identity, origin.created, manifest.name, manifest.version, verdict)
    segments, warnings, objects = _segments(manifest), [], []
    segmentation: Path | None = names.segmentation
    try:
        made = write_segmentation(names.segmentation, labels, source=volume.source, segments=segments, about=about)
        objects.append({**asdict(made), "artefact": "segmentation"})
    except UnwritableError as error:
        segmentation = None
        warnings.append(f"There is no DICOM SEG: {error}.")
    findings = [_finding(one, segments) for one in records]
    try:
        made = write_report(names.report, findings, source=volume.source, segmentation=segmentation, about=about)
        objects.append({**asdict(made), "artefact": "report"})
    except UnwritableError as error:
        warnings.append(f"There is no DICOM SR: {error}.")
    return DicomResult(tuple(objects), tuple(warnings))


def _segments(manifest: Manifest) -> list[CodedSegment]:
    from imaging.dicom_about import CodedSegment

    return [CodedSegment(one.label, one.name, **one.code.model_dump()) for one in manifest.segments]


def _finding(record: StructureRecord, segments: Sequence[CodedSegment]) -> Finding:
    from imaging.dicom_sr import Finding

    number, segment = next(
        ((number, one) for number, one in enumerate(segments, start=1) if one.label == record.label), (None, None)
    )
    return Finding(
        name=record.name,
        segment=segment,
        number=number if record.volume_ml > 0 else None,
        verdict=record.verdict,
        reasons=[reason.code for reason in record.reasons],
        volume_ml=record.volume_ml,
        nqm=record.nqm,
        predicted_dice=record.predicted_dice,
        dice_interval=record.dice_interval,
    )
