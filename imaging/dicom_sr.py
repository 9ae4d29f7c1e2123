"""The verdict as a DICOM Structured Report: a measurement report (DICOM part 16, TID 1500) over the segmentation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import highdicom as hd
from highdicom.sr import CodedConcept, Measurement, QualitativeEvaluation
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian

from imaging.dicom_about import MAKER, TITLE_CHARACTERS, About, CodedSegment, MadeObject, save, writing
from imaging.dicom_file import read_reference

Group = hd.sr.MeasurementsAndQualitativeEvaluations | hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations
SERIES_NUMBER = 9002
"""After the segmentation's."""
SCHEME = "99NCAGATE"
"""Of the codes that no standard has; 99 marks a scheme of one's own (DICOM part 16, 8.2)."""
NQM = CodedConcept("NQM", SCHEME, "NCA quality metric")
PREDICTED_DICE = CodedConcept("DICE", SCHEME, "Predicted Dice")
DICE_LOW = CodedConcept("DICE-LOW", SCHEME, "Dice, lower end of the 90 % interval")
DICE_HIGH = CodedConcept("DICE-HIGH", SCHEME, "Dice, upper end of the 90 % interval")
VERDICT = CodedConcept("VERDICT", SCHEME, "Verdict")
REASON = CodedConcept("REASON", SCHEME, "Reason to flag")
MILLILITRE = CodedConcept("ml", "UCUM", "milliliter")
DIGITS = 4
"""After the point: more says nothing, and a decimal string has room for 16 characters."""
VERDICTS = {
    "accept": CodedConcept("ACCEPT", SCHEME, "Accepted"),
    "flag": CodedConcept("FLAG", SCHEME, "Flagged: a person has to look"),
}


@dataclass(frozen=True)
class Finding:
    """What is said of one structure; ``segment`` is None for several together.

    Attributes:
        number: of the segment in the segmentation, from 1; None where it has none, or no voxel of it was found.
        reasons: their codes.
        dice_interval: range of the true Dice (90 %).
    """

    name: str
    segment: CodedSegment | None
    number: int | None
    verdict: Literal["accept", "flag"]
    reasons: Sequence[str]
    volume_ml: float
    nqm: float | None
    predicted_dice: float | None
    dice_interval: tuple[float, float] | None


def write_report(
    path: Path, findings: Sequence[Finding], *, source: Sequence[Path], segmentation: Path | None, about: About
) -> MadeObject:
    """Write the findings on the series in ``source``; ``segmentation`` is the DICOM SEG that they speak of, if any.

    Raises:
        UnwritableError: the images lack what such an object has to repeat.
    """
    with writing(path, "SR"):
        images = [read_reference(one) for one in source]
        seg = None if segmentation is None else dcmread(segmentation)
        return save(_report(findings, images, seg, about), path)


def _report(
    findings: Sequence[Finding], images: Sequence[Dataset], segmentation: Dataset | None, about: About
) -> hd.sr.ComprehensiveSR:
    device = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=about.uid("observer"),
        manufacturer_name=MAKER,
        model_name=about.model,
        serial_number=about.version,
    )
    observer = hd.sr.ObserverContext(observer_type=codes.DCM.Device, observer_identifying_attributes=device)
    content = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(observer_device_context=observer),
        procedure_reported=CodedConcept("SEGMENTATION", SCHEME, "Segmentation with a judgement of its quality"),
        imaging_measurements=[_group(one, images, segmentation, about) for one in findings],
        title=codes.DCM.ImagingMeasurementReport,
    )
    made = hd.sr.ComprehensiveSR(
        evidence=[*images] if segmentation is None else [segmentation, *images],
        content=content[0],
        series_instance_uid=about.uid("report series"),
        series_number=SERIES_NUMBER,
        sop_instance_uid=about.uid("report"),
        instance_number=1,
        manufacturer=MAKER,
        is_complete=True,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        series_description=about.title,
    )
    about.stamp(made)
    return made


def _group(finding: Finding, images: Sequence[Dataset], segmentation: Dataset | None, about: About) -> Group:
    segment = finding.segment
    said: dict[str, Any] = {
        "tracking_identifier": hd.sr.TrackingIdentifier(
            uid=about.uid(f"structure {finding.name}"), identifier=f"{about.model} {finding.name}"[:TITLE_CHARACTERS]
        ),
        "finding_type": None if segment is None else CodedConcept(segment.value, segment.scheme, segment.meaning),
        "algorithm_id": hd.sr.AlgorithmIdentification(name=f"{MAKER} {about.model}", version=about.version),
        "measurements": [*_measurements(finding)],
        "qualitative_evaluations": [*_evaluations(finding)],
    }
    if segmentation is None or finding.number is None:
        sources = [hd.sr.SourceImageForMeasurementGroup(one.SOPClassUID, one.SOPInstanceUID) for one in images]
        return hd.sr.MeasurementsAndQualitativeEvaluations(**said, source_images=sources)
    referenced = hd.sr.ReferencedSegment(
        segmentation.SOPClassUID,
        segmentation.SOPInstanceUID,
        finding.number,
        source_series=hd.sr.SourceSeriesForSegmentation(images[0].SeriesInstanceUID),
    )
    return hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(**said, referenced_segment=referenced)


def _measurements(finding: Finding) -> Iterator[Measurement]:
    yield Measurement(codes.SCT.Volume, round(finding.volume_ml, DIGITS), MILLILITRE)
    low, high = finding.dice_interval or (None, None)
    figures = ((NQM, finding.nqm), (PREDICTED_DICE, finding.predicted_dice), (DICE_LOW, low), (DICE_HIGH, high))
    for name, value in figures:
        if value is not None:
            yield Measurement(name, round(value, DIGITS), codes.UCUM.NoUnits)


def _evaluations(finding: Finding) -> Iterator[QualitativeEvaluation]:
    yield QualitativeEvaluation(VERDICT, VERDICTS[finding.verdict])
    for code in finding.reasons:
        yield QualitativeEvaluation(REASON, CodedConcept(code, SCHEME, code.replace("_", " ")))
