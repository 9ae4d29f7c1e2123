from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from imaging.dicom_about import About, CodedSegment
from imaging.dicom_seg import write_segmentation
from imaging.dicom_series import read_dicom_series
from imaging.dicom_sr import Finding, write_report
from imaging.errors import UnwritableError
from imaging.limits import Limits
from imaging.volume import Volume

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

SEGMENTS = (
    CodedSegment(1, "hippocampus", "SCT", "5366008", "Hippocampus"),
    CodedSegment(2, "head", "99NCAGATE", "HIPP-ANT", "Anterior hippocampus"),
)
ABOUT = About("a job", datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC), "hippocampus", "20260504-000000", "flag")
FINDINGS = (
    Finding("hippocampus", SEGMENTS[0], 1, "accept", (), 3.25, 0.05, 0.91, (0.85, 0.94)),
    Finding("head", SEGMENTS[1], None, "flag", ("empty_mask", "predicted_dice_too_low"), 0.0, None, None, None),
    Finding("union", None, None, "flag", ("volume_implausible",), 3.25, 0.05, 0.7, (0.5, 0.8)),
)
Series = Callable[..., list[Path]]


def write(volume: Volume, folder: Path, *, findings: Sequence[Finding] = FINDINGS, mask: bool = True) -> Path:
    """The report on a mask of the first segment alone, or on none."""
    segmentation = folder / "segmentation.dcm" if mask else None
    if segmentation is not None:
        labels = np.zeros(volume.array.shape, np.uint8)
        labels[3:8, 3:9, 1:3] = 1
        write_segmentation(segmentation, labels, source=volume.source, segments=SEGMENTS, about=ABOUT)
    path = folder / "report.dcm"
    write_report(path, findings, source=volume.source, segmentation=segmentation, about=ABOUT)
    return path


@pytest.fixture
def volume(series: Series) -> Volume:
    return read_dicom_series(series(), limits=Limits())


def groups(report: pydicom.Dataset) -> list[list[tuple[str, str]]]:
    """(name, value) of every measurement, code and reference in each measurement group."""
    (measurements,) = [one for one in report.ContentSequence if name_of(one) == "Imaging Measurements"]
    return [[(name_of(one), value_of(one)) for one in group.ContentSequence] for group in measurements.ContentSequence]


def name_of(item: Any) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeMeaning)


def value_of(item: Any) -> str:
    if item.ValueType == "NUM":
        measured = item.MeasuredValueSequence[0]
        return f"{measured.NumericValue} {measured.MeasurementUnitsCodeSequence[0].CodeValue}"
    if item.ValueType == "CODE":
        code = item.ConceptCodeSequence[0]
        return str(code.get("CodeValue") or code.LongCodeValue)
    if item.ValueType == "IMAGE":
        return str(item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID)
    return str(item.get("TextValue") or item.get("UID"))


class TestContent:
    def test_says_of_each_structure_what_the_result_says(self, volume: Volume, tmp_path: Path) -> None:
        first, second, union = (dict(one) for one in groups(pydicom.dcmread(write(volume, tmp_path))))
        assert first["Volume"] == "3.25 ml"
        assert first["NCA quality metric"] == "0.05 1"
        assert first["Predicted Dice"] == "0.91 1"
        assert first["Dice, lower end of the 90 % interval"] == "0.85 1"
        assert first["Dice, upper end of the 90 % interval"] == "0.94 1"
        assert (first["Finding"], first["Verdict"]) == ("5366008", "ACCEPT")
        assert "Reason to flag" not in first
        assert (first["Algorithm Name"], first["Algorithm Version"]) == ("ncagate hippocampus", ABOUT.version)
        assert (second["Verdict"], union["Verdict"]) == ("FLAG", "FLAG")
        assert "Predicted Dice" not in second
        assert "Finding" not in union

    def test_every_reason_is_there(self, volume: Volume, tmp_path: Path) -> None:
        second = groups(pydicom.dcmread(write(volume, tmp_path)))[1]
        assert [value for name, value in second if name == "Reason to flag"] == list(FINDINGS[1].reasons)

    def test_refers_to_the_segment_or_else_to_the_images(self, volume: Volume, tmp_path: Path) -> None:
        report = pydicom.dcmread(write(volume, tmp_path))
        segmentation = pydicom.dcmread(tmp_path / "segmentation.dcm")
        first, second, _ = groups(report)
        assert dict(first)["Referenced Segment"] == segmentation.SOPInstanceUID
        assert dict(first)["Source Series for Segmentation"] == pydicom.dcmread(volume.source[0]).SeriesInstanceUID
        images = {str(pydicom.dcmread(one).SOPInstanceUID) for one in volume.source}
        assert {value for name, value in second if name == "Source of Measurement"} == images
        assert report.StudyInstanceUID == segmentation.StudyInstanceUID
        assert report.SeriesInstanceUID != segmentation.SeriesInstanceUID

    def test_a_machine_verifies_nothing(self, volume: Volume, tmp_path: Path) -> None:
        report = pydicom.dcmread(write(volume, tmp_path))
        assert report.VerificationFlag == "UNVERIFIED"
        assert report.SeriesDescription.startswith("FLAGGED: ")

    def test_a_retry_makes_the_same_object(self, volume: Volume, tmp_path: Path) -> None:
        first, again = (write(volume, tmp_path).read_bytes() for _ in range(2))
        assert first == again


class TestConformance:
    @pytest.mark.parametrize("mask", [True, False], ids=["with a segmentation", "with none"])
    def test_dciodvfy_finds_no_error(
        self, volume: Volume, tmp_path: Path, iod_errors: Callable[[Path, str], list[str]], mask: bool
    ) -> None:
        findings = FINDINGS if mask else [replace(one, number=None) for one in FINDINGS]
        assert iod_errors(write(volume, tmp_path, findings=findings, mask=mask), "ComprehensiveSR") == []


class TestRefusals:
    def test_images_without_a_study_leave_no_file(self, series: Series, tmp_path: Path) -> None:
        files = series(lambda dataset, _: delattr(dataset, "StudyInstanceUID"))
        with pytest.raises(UnwritableError, match="lack"):
            write(read_dicom_series(files, limits=Limits()), tmp_path, mask=False)
        assert not (tmp_path / "report.dcm").exists()

    def test_an_image_that_is_damaged_by_now_costs_the_object_alone(self, series: Series, tmp_path: Path) -> None:
        volume = read_dicom_series(series(), limits=Limits())
        volume.source[1].write_bytes(volume.source[1].read_bytes()[:401])
        with pytest.raises(UnwritableError, match="lack"):
            write(volume, tmp_path, mask=False)
        assert not (tmp_path / "report.dcm").exists()

    def test_what_the_disk_refuses_is_no_fault_of_the_images(self, series: Series, tmp_path: Path) -> None:
        volume = read_dicom_series(series(), limits=Limits())
        with pytest.raises(OSError, match="report"):
            write(volume, tmp_path / "none", mask=False)
