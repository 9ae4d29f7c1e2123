import hmac
import struct
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence as Items
from pydicom.tag import Tag
from pydicom.uid import DeflatedExplicitVRLittleEndian

from imaging.dicom_about import About, CodedSegment
from imaging.dicom_reference import MAY_BE_EMPTY
from imaging.dicom_restore import restore
from imaging.dicom_seg import write_segmentation
from imaging.dicom_series import read_dicom_series
from imaging.dicom_sr import Finding, write_report
from imaging.dicom_strip import Action, Stripped, action_for, strip, tags_taken
from imaging.errors import CorruptFileError
from imaging.limits import Limits
from imaging.volume import Volume

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

SEGMENT = CodedSegment(1, "hippocampus", "SCT", "5366008", "Hippocampus")
ABOUT = About("a job", datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC), "hippocampus", "20260504-000000", "accept")
NAME, PHYSICIAN, PATIENT, BORN, DAY = "Quendola^Xyvira", "Zorbax^Hilmar", "PAT-918273", "19310713", "20190817"
SECRET, UIDS = "sekrit-81724", ("1.2.276.99.1", "1.2.276.99.2", "1.2.276.99.3")
IDENTIFYING = ("Quendola", "Zorbax", PATIENT, BORN, DAY, SECRET, "1.2.276.99.", "1.2.3.")
ENCODINGS = (
    "MR_small.dcm", "MR_small_bigendian.dcm", "MR_small_implicit.dcm", "MR_small_RLE.dcm", "MR_small_jp2klossless.dcm",
    "MR_small_jpeg_ls_lossless.dcm", "MR_small_padded.dcm",
)  # fmt: skip
Series = Callable[..., list[Path]]
IodErrors = Callable[[Path, str], list[str]]


def keyed(uid: str) -> str:
    return f"2.25.{UUID(bytes=hmac.digest(b'key', uid.encode(), 'sha256')[:16], version=4).int}"


def identify(dataset: FileDataset, number: int) -> None:
    """Put an identity wherever there is room for one."""
    dataset.preamble = SECRET.encode().ljust(128, b"\0")
    dataset.file_meta.SourceApplicationEntityTitle = SECRET
    dataset.PatientName, dataset.ReferringPhysicianName, dataset.PatientID = NAME, PHYSICIAN, PATIENT
    dataset.PatientBirthDate, dataset.PatientAge, dataset.PatientWeight = BORN, "088Y", "71.5"
    dataset.StudyDate = dataset.SeriesDate = dataset.ContentDate = dataset.AcquisitionDate = DAY
    dataset.StudyDescription = dataset.SeriesDescription = dataset.ImageComments = SECRET
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = UIDS
    dataset.AccessionNumber, dataset.StudyID = SECRET, SECRET
    nested, deeper = Dataset(), Dataset()
    deeper.PatientName, deeper.StudyDate, deeper.ReferencedSOPInstanceUID = NAME, DAY, UIDS[0] + ".7"
    deeper.ReferencedSOPClassUID = dataset.SOPClassUID
    deeper.private_block(0x4B, SECRET, create=True).add_new(1, "LO", SECRET)
    nested.ReferencedImageSequence = Items([deeper])
    dataset.AnatomicRegionSequence = Items([nested])
    dataset.ReferencedImageSequence = Items([deeper])
    dataset.private_block(0x0009, "ACME", create=True).add_new(1, "LO", SECRET)
    dataset.private_block(0x7FE1, "ACME", create=True).add_new(1, "LO", SECRET)
    dataset.add_new(0x60003000, "OW", SECRET.encode())
    dataset.add_new(0xFFFCFFFC, "OB", SECRET.encode())


def stripped(files: Sequence[Path], folder: Path) -> tuple[list[Path], list[Stripped]]:
    folder.mkdir(exist_ok=True)
    targets = [folder / f"{number:04d}" for number in range(len(files))]
    return targets, [strip(one, to, replace_uid=keyed) for one, to in zip(files, targets, strict=True)]


def read(files: Sequence[Path]) -> Volume:
    return read_dicom_series(files, limits=Limits())


def mask_for(volume: Volume) -> NDArray[np.uint8]:
    labels = np.zeros(volume.array.shape, np.uint8)
    x, y, z = volume.array.shape
    labels[x // 5 : x // 2, y // 4 : y // 3, 1 : z // 2 + 1] = 1
    return labels


def results(files: Sequence[Path], folder: Path) -> tuple[Path, Path]:
    """SEG and SR of the same mask, verdict and job over these images."""
    folder.mkdir(exist_ok=True)
    volume = read(files)
    segmentation, report = folder / "segmentation.dcm", folder / "report.dcm"
    write_segmentation(
        segmentation, mask_for(volume), source=volume.source, frames=volume.frames, segments=[SEGMENT], about=ABOUT
    )
    finding = Finding("hippocampus", SEGMENT, 1, "accept", (), 3.2, 0.1, 0.9, (0.8, 0.95))
    write_report(report, [finding], source=volume.source, segmentation=segmentation, about=ABOUT)
    return segmentation, report


class TestWhatIsTaken:
    @pytest.mark.parametrize("source", ENCODINGS)
    def test_nothing_of_the_identity_is_in_the_bytes(self, series: Series, tmp_path: Path, source: str) -> None:
        files = series(identify, source=source, count=2)
        before, _ = pydicom.dcmread(files[0]), stripped(files, tmp_path / "s")
        assert all(one.encode() in files[0].read_bytes() for one in IDENTIFYING if one != "1.2.3.")
        kept = (tmp_path / "s" / "0000").read_bytes()
        old = [str(before[one].value) for one in ("SOPInstanceUID", "StudyInstanceUID")]
        assert [one for one in (*IDENTIFYING[:-1], *old) if one.encode() in kept] == []

    @pytest.mark.parametrize("padding", [0, 70_000])
    def test_nor_in_sequences_of_unknown_kind(self, series: Series, tmp_path: Path, padding: int) -> None:
        def hide(dataset: FileDataset, number: int) -> None:
            item, out = Dataset(), DicomBytesIO()
            item.PatientName, item.CodeMeaning = NAME, "x" * padding
            out.is_implicit_VR, out.is_little_endian = True, True
            write_dataset(out, item)
            value = struct.pack("<HHL", 0xFFFE, 0xE000, out.tell()) + out.getvalue()
            tag = Tag("AnatomicRegionSequence")
            dataset[tag] = RawDataElement(tag, "UN", len(value), value, 0, False, True, True)

        files = series(hide, count=1)
        assert NAME.encode() in files[0].read_bytes()
        (path,), _ = stripped(files, tmp_path / "s")
        assert NAME.encode() not in path.read_bytes()

    def test_and_it_says_so(self, series: Series, tmp_path: Path) -> None:
        (path,), _ = stripped(series(identify, count=1), tmp_path / "s")
        dataset = pydicom.dcmread(path)
        assert dataset.PatientIdentityRemoved == "YES"
        assert dataset.DeidentificationMethodCodeSequence[0].CodeValue == "113100"
        assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID
        assert (dataset.PatientName, dataset.PatientID, dataset.StudyDate) == ("", "", "")

    def test_references_and_kinds_hold(self, series: Series, tmp_path: Path) -> None:
        files = series(identify, count=1)
        (path,), (taken,) = stripped(files, tmp_path / "s")
        before, after = pydicom.dcmread(files[0]), pydicom.dcmread(path)
        nested = after.AnatomicRegionSequence[0].ReferencedImageSequence[0]
        assert nested.ReferencedSOPInstanceUID == keyed(UIDS[0] + ".7")
        assert nested.ReferencedSOPClassUID == after.SOPClassUID == before.SOPClassUID
        assert {*taken.uids.values()} >= {*UIDS, UIDS[0] + ".7", "1.2.3.1"}
        assert taken.uids == {keyed(one): one for one in taken.uids.values()}
        assert all(pydicom.uid.UID(one).is_valid for one in taken.uids)

    def test_what_results_repeat_is_handed_over(self, series: Series, tmp_path: Path) -> None:
        files = series(identify, count=1)
        _, (taken,) = stripped(files, tmp_path / "s")
        values = taken.dataset()
        assert (values.PatientName, values.PatientWeight, values.AccessionNumber) == (NAME, 71.5, SECRET)

    def test_everything_that_must_be_there_in_a_result_is_handed_over(self) -> None:
        assert {Tag(one) for one in MAY_BE_EMPTY} <= {*tags_taken()}

    @pytest.mark.parametrize(
        ("keyword", "vr", "action"),
        [
            ("PatientName", "PN", Action.EMPTY), ("PatientSex", "CS", Action.EMPTY),
            ("PatientAge", "AS", Action.REMOVE),
            ("InstitutionName", "LO", Action.REMOVE), ("StationName", "SH", Action.REMOVE),
            ("DeviceSerialNumber", "LO", Action.REMOVE), ("AcquisitionTime", "TM", Action.REMOVE),
            ("ProtocolName", "LO", Action.REMOVE), ("FrameOfReferenceUID", "UI", Action.UID),
            ("FrameAcquisitionDateTime", "DT", Action.DUMMY), ("SourceImageSequence", "SQ", Action.WALK),
            ("SOPClassUID", "UI", None), ("RescaleSlope", "DS", None), ("ImagePositionPatient", "DS", None),
            ("Modality", "CS", None), ("BodyPartExamined", "CS", None), ("EvaluatorName", "PN", Action.REMOVE),
            ("VolumeFrameOfReferenceUID", "UI", Action.UID),
        ],
    )  # fmt: skip
    def test_by_the_basic_profile(self, keyword: str, vr: str, action: Action | None) -> None:
        assert action_for(Tag(keyword), vr) == action


class TestWhatStays:
    @pytest.mark.parametrize("source", ENCODINGS)
    def test_geometry_and_pixels(self, series: Series, tmp_path: Path, source: str) -> None:
        files = series(identify, source=source)
        kept, _ = stripped(files, tmp_path / "s")
        before, after = read(files), read(kept)
        np.testing.assert_array_equal(before.affine, after.affine)
        np.testing.assert_array_equal(before.array, after.array)
        assert pydicom.dcmread(kept[0])["PixelData"].value == pydicom.dcmread(files[0])["PixelData"].value

    def test_a_deflated_object_is_kept_plain(self, series: Series, tmp_path: Path) -> None:
        plain, files = series(identify, count=3), [tmp_path / f"deflated-{number}" for number in range(3)]
        for source, target in zip(plain, files, strict=True):
            dataset = pydicom.dcmread(source)
            dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
            dataset.save_as(target)
        kept, _ = stripped(files, tmp_path / "s")
        assert sorted((tmp_path / "s").iterdir()) == kept
        np.testing.assert_array_equal(read(kept).array, read(plain).array)
        assert SECRET.encode() not in kept[0].read_bytes()

    def test_the_same_object_gives_the_same_bytes(self, series: Series, tmp_path: Path) -> None:
        files = series(identify, count=1)
        (first,), _ = stripped(files, tmp_path / "a")
        (again,), _ = stripped(files, tmp_path / "b")
        assert first.read_bytes() == again.read_bytes()

    def test_large_private_elements_are_passed_over(self, series: Series, tmp_path: Path) -> None:
        def grow(dataset: FileDataset, number: int) -> None:
            dataset.private_block(0x0009, "ACME", create=True).add_new(1, "OB", bytes(33 << 20))

        (kept,), _ = stripped(series(grow, count=1), tmp_path / "s")
        assert kept.stat().st_size < 1 << 20

    def test_a_header_without_end_is_refused(self, series: Series, tmp_path: Path) -> None:
        def grow(dataset: FileDataset, number: int) -> None:
            dataset.PurposeOfReferenceCodeSequence = Items([Dataset()])
            dataset.PurposeOfReferenceCodeSequence[0].RedPaletteColorLookupTableData = bytes(17 << 20)

        with pytest.raises(CorruptFileError, match="larger than"):
            stripped(series(grow, count=1), tmp_path / "s")


REAL = ("hippocampus_crop_1", "prostate_t2_1", "whole_brain_t1post")


class TestResults:
    def check(self, files: Sequence[Path], folder: Path) -> tuple[Path, Path]:
        """What is made over stripped images and restored is what is made over the images, byte for byte."""
        kept, taken = stripped(files, folder / "stripped")
        uids = {new: old for one in taken for new, old in one.uids.items()}
        wanted, made = results(files, folder / "wanted"), results(kept, folder / "made")
        restored = [folder / one.name for one in made]
        for source, target, same in zip(made, restored, wanted, strict=True):
            restore(source, target, values=taken[0].dataset(), uids=uids)
            assert target.read_bytes() == same.read_bytes()
        return made

    def test_of_made_up_patients(self, series: Series, tmp_path: Path) -> None:
        for path in self.check(series(identify), tmp_path):
            assert [one for one in IDENTIFYING[:-1] if one.encode() in path.read_bytes()] == []

    @pytest.mark.parametrize("name", REAL)
    def test_of_real_ones(self, shared_data: Path, tmp_path: Path, iod_errors: IodErrors, name: str) -> None:
        self.check([one for one in (shared_data / "dicom" / name).rglob("*") if one.is_file()], tmp_path)
        assert iod_errors(tmp_path / "segmentation.dcm", "Segmentation") == []
        assert iod_errors(tmp_path / "report.dcm", "ComprehensiveSR") == []

    def test_of_names_in_other_characters(self, series: Series, tmp_path: Path) -> None:
        def rename(dataset: Any, number: int) -> None:
            dataset.SpecificCharacterSet = "ISO_IR 192"
            dataset.PatientName, dataset.StudyDescription = "Łukasz^Żółć", "頭部"

        self.check(series(rename), tmp_path)
