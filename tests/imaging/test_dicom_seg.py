from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pydicom
import pytest
from nibabel.affines import apply_affine
from numpy.typing import NDArray

from imaging.dicom_about import About, CodedSegment
from imaging.dicom_seg import write_segmentation
from imaging.dicom_series import read_dicom_series
from imaging.errors import UnwritableError
from imaging.limits import Limits
from imaging.volume import Volume

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

SEGMENTS = (
    CodedSegment(1, "hippocampus", "SCT", "5366008", "Hippocampus"),
    CodedSegment(4, "head", "99NCAGATE", "HIPP-ANT", "Anterior hippocampus"),
)
ABOUT = About("a job", datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC), "hippocampus", "20260504-000000", "accept")
OBLIQUE = [0.8, 0.6, 0.0, 0.0, 0.0, -1.0]
Series = Callable[..., list[Path]]
IodErrors = Callable[[Path, str], list[str]]
DcmqiPoints = Callable[[Path, Path], list[NDArray[np.float64]]]


def read(files: Sequence[Path]) -> Volume:
    return read_dicom_series(files, limits=Limits())


def mask_for(volume: Volume) -> NDArray[np.uint8]:
    """Two segments that no mirroring or transposition leaves where they are; slices without any."""
    labels = np.zeros(volume.array.shape, np.uint8)
    (x, y, z) = volume.array.shape
    labels[x // 5 : x // 2, y // 4 : y // 3, 1 : z // 2 + 1] = 1
    labels[x // 2 : x // 2 + 3, y // 4 : y // 3, z // 2] = 4
    return labels


def tilted(dataset: Any, number: int) -> None:
    """Slices that lie along no axis of the patient."""
    dataset.ImageOrientationPatient = OBLIQUE
    normal = np.cross(OBLIQUE[:3], OBLIQUE[3:])
    dataset.ImagePositionPatient = (np.array([-10.0, -20.0, 5.0]) + 3 * number * normal).tolist()


def write(volume: Volume, folder: Path, about: About = ABOUT, labels: NDArray[np.uint8] | None = None) -> Path:
    path = folder / "segmentation.dcm"
    labels = mask_for(volume) if labels is None else labels
    write_segmentation(path, labels, source=volume.source, segments=SEGMENTS, about=about)
    return path


REAL = ("hippocampus_crop_1", "prostate_t2_1", "prostate_t2_coronal", "prostate_t2_sagittal", "whole_brain_t1post")


class TestGeometry:
    @pytest.mark.parametrize("name", REAL)
    def test_another_reader_finds_the_mask_in_the_same_place(
        self, shared_data: Path, tmp_path: Path, name: str, dcmqi_points: DcmqiPoints
    ) -> None:
        volume = read([one for one in (shared_data / "dicom" / name).rglob("*") if one.is_file()])
        self.check(volume, tmp_path, dcmqi_points)

    def test_oblique_slices_sent_in_any_order(self, series: Series, tmp_path: Path, dcmqi_points: DcmqiPoints) -> None:
        files = series(tilted, count=7)
        self.check(read([files[index] for index in (3, 0, 6, 2, 5, 1, 4)]), tmp_path, dcmqi_points)

    def check(self, volume: Volume, folder: Path, dcmqi_points: DcmqiPoints) -> None:
        labels = mask_for(volume)
        found = dcmqi_points(write(volume, folder), folder)
        assert len(found) == len(SEGMENTS)
        for segment, points in zip(SEGMENTS, found, strict=True):
            voxels = np.rint(apply_affine(np.linalg.inv(volume.affine), points))
            assert np.abs(points - apply_affine(volume.affine, voxels)).max() < 0.01  # mm
            assert {tuple(one) for one in voxels.astype(int).tolist()} == {
                tuple(one) for one in np.argwhere(labels == segment.label).tolist()
            }


class TestConformance:
    @pytest.mark.parametrize("verdict", ["accept", "flag"])
    def test_dciodvfy_finds_no_error(
        self, series: Series, tmp_path: Path, iod_errors: IodErrors, verdict: Literal["accept", "flag"]
    ) -> None:
        assert iod_errors(write(read(series(count=6)), tmp_path, replace(ABOUT, verdict=verdict)), "Segmentation") == []

    @pytest.mark.parametrize("name", REAL)
    def test_nor_on_real_series(self, shared_data: Path, tmp_path: Path, iod_errors: IodErrors, name: str) -> None:
        volume = read([one for one in (shared_data / "dicom" / name).rglob("*") if one.is_file()])
        assert iod_errors(write(volume, tmp_path), "Segmentation") == []


class TestContent:
    def test_refers_to_the_images_in_their_study_and_frame_of_reference(self, series: Series, tmp_path: Path) -> None:
        files = series(count=6)
        first = pydicom.dcmread(files[0])
        made = pydicom.dcmread(write(read(files), tmp_path))
        for keyword in ("PatientID", "PatientName", "StudyInstanceUID", "FrameOfReferenceUID"):
            assert made[keyword].value == first[keyword].value
        assert made.SeriesInstanceUID != first.SeriesInstanceUID
        (referenced,) = made.ReferencedSeriesSequence
        assert referenced.SeriesInstanceUID == first.SeriesInstanceUID
        uids = {one.ReferencedSOPInstanceUID for one in referenced.ReferencedInstanceSequence}
        assert uids == {pydicom.dcmread(one).SOPInstanceUID for one in files}

    def test_names_codes_and_algorithm(self, series: Series, tmp_path: Path) -> None:
        made = pydicom.dcmread(write(read(series(count=6)), tmp_path))
        assert made.SegmentationType == "BINARY"
        assert [one.SegmentLabel for one in made.SegmentSequence] == ["hippocampus", "head"]
        types = [one.SegmentedPropertyTypeCodeSequence[0] for one in made.SegmentSequence]
        assert [(one.CodingSchemeDesignator, one.CodeValue) for one in types] == [
            ("SCT", "5366008"), ("99NCAGATE", "HIPP-ANT"),
        ]  # fmt: skip
        algorithm = made.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0]
        assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("ncagate hippocampus", ABOUT.version)

    @pytest.mark.parametrize(("verdict", "mark"), [("accept", "ACCEPTED"), ("flag", "FLAGGED")])
    def test_nobody_takes_a_flagged_mask_for_an_accepted_one(
        self, series: Series, tmp_path: Path, verdict: Literal["accept", "flag"], mark: str
    ) -> None:
        made = pydicom.dcmread(write(read(series(count=6)), tmp_path, replace(ABOUT, verdict=verdict)))
        assert made.ContentLabel == mark
        assert made.SeriesDescription.startswith(f"{mark}: ")
        assert made.ContentDescription.startswith(f"{mark}: ")

    def test_a_retry_makes_the_same_object_and_another_job_another(self, series: Series, tmp_path: Path) -> None:
        volume = read(series(count=6))
        first, again = (write(volume, tmp_path).read_bytes() for _ in range(2))
        assert first == again
        uids = [
            pydicom.dcmread(write(volume, tmp_path, replace(ABOUT, identity=identity))).SOPInstanceUID
            for identity in ("a job", "another")
        ]
        assert uids[0] != uids[1]
        assert all(uid.is_valid for uid in uids)


class TestRefusals:
    def test_an_empty_mask(self, series: Series, tmp_path: Path) -> None:
        volume = read(series())
        with pytest.raises(UnwritableError, match="empty"):
            write(volume, tmp_path, labels=np.zeros(volume.array.shape, np.uint8))

    def test_images_without_a_study_leave_no_file(self, series: Series, tmp_path: Path) -> None:
        volume = read(series(lambda dataset, _: delattr(dataset, "StudyInstanceUID")))
        with pytest.raises(UnwritableError, match="lack"):
            write(volume, tmp_path)
        assert not (tmp_path / "segmentation.dcm").exists()

    def test_images_without_a_patient_do(self, series: Series, tmp_path: Path) -> None:
        def anonymous(dataset: Any, number: int) -> None:
            for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyID", "AccessionNumber"):
                if keyword in dataset:
                    delattr(dataset, keyword)

        assert pydicom.dcmread(write(read(series(anonymous)), tmp_path)).PatientID == ""

    def test_an_image_that_is_damaged_by_now_costs_the_object_alone(self, series: Series, tmp_path: Path) -> None:
        volume = read_dicom_series(series(), limits=Limits())
        volume.source[1].write_bytes(volume.source[1].read_bytes()[:401])
        with pytest.raises(UnwritableError, match="lack"):
            write(volume, tmp_path)
        assert not (tmp_path / "segmentation.dcm").exists()

    def test_what_the_disk_refuses_is_no_fault_of_the_images(self, series: Series, tmp_path: Path) -> None:
        volume = read_dicom_series(series(), limits=Limits())
        with pytest.raises(OSError, match="segmentation"):
            write(volume, tmp_path / "none")
