"""What an object says it is, from its header alone."""

import zlib
from pathlib import Path

import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.uid import DeflatedExplicitVRLittleEndian

from imaging.dicom_identity import read_identity
from imaging.errors import CorruptFileError, DicomdirUnsupportedError, ImagingError, UnknownFormatError


def wheel_file(name: str) -> Path:
    found = get_testdata_file(name, download=False)
    assert isinstance(found, str)
    return Path(found)


def changed(folder: Path, **values: str | None) -> Path:
    """MR_small with other values, or without an element where the value is None."""
    dataset = pydicom.dcmread(wheel_file("MR_small.dcm"))
    for keyword, value in values.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    dataset.save_as(folder / "changed.dcm")
    return folder / "changed.dcm"


class TestReadIdentity:
    @pytest.mark.parametrize(
        "name", ["MR_small.dcm", "MR_small_bigendian.dcm", "MR_small_implicit.dcm", "MR_small_jp2klossless.dcm"]
    )
    def test_is_the_same_in_every_encoding(self, name: str) -> None:
        expected = pydicom.dcmread(wheel_file(name), stop_before_pixels=True)
        identity = read_identity(wheel_file(name))
        assert (identity.sop_class, identity.instance) == (expected.SOPClassUID, expected.SOPInstanceUID)
        assert (identity.study, identity.series) == (expected.StudyInstanceUID, expected.SeriesInstanceUID)
        assert identity.modality == "MR"
        assert identity.image

    def test_a_deflated_object_has_one(self) -> None:
        path = wheel_file("image_dfl.dcm")
        expected = pydicom.dcmread(path)
        assert expected.file_meta.TransferSyntaxUID == DeflatedExplicitVRLittleEndian
        assert read_identity(path).instance == expected.SOPInstanceUID

    def test_of_a_deflated_bomb_only_the_head_is_inflated(self, tmp_path: Path) -> None:
        original = wheel_file("image_dfl.dcm").read_bytes()
        start = 144 + int.from_bytes(original[140:144], "little")
        plain = zlib.decompress(original[start:], -zlib.MAX_WBITS)
        packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
        bomb = packer.compress(plain) + b"".join(packer.compress(bytes(1 << 24)) for _ in range(16)) + packer.flush()
        (tmp_path / "bomb.dcm").write_bytes(original[:start] + bomb[: len(bomb) // 2])  # its end is never asked for
        assert (
            read_identity(tmp_path / "bomb.dcm").instance == pydicom.dcmread(wheel_file("image_dfl.dcm")).SOPInstanceUID
        )

    @pytest.mark.parametrize("keyword", ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"])
    def test_an_object_without_an_identifier_is_refused(self, tmp_path: Path, keyword: str) -> None:
        with pytest.raises(CorruptFileError, match="identifier"):
            read_identity(changed(tmp_path, **{keyword: None}))

    @pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
    def test_an_identifier_that_could_be_a_path_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(CorruptFileError) as refusal:
            read_identity(changed(tmp_path, SeriesInstanceUID="../../etc/passwd"))
        assert "passwd" not in str(refusal.value)

    def test_a_dicomdir_is_refused(self) -> None:
        with pytest.raises(DicomdirUnsupportedError):
            read_identity(wheel_file("DICOMDIR"))

    def test_what_is_no_dicom_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "text").write_text("a letter")
        with pytest.raises(UnknownFormatError):
            read_identity(tmp_path / "text")

    @pytest.mark.parametrize("size", [0, 100, 132, 140, 300, 800])
    def test_a_file_that_ends_early_is_refused(self, tmp_path: Path, size: int) -> None:
        (tmp_path / "short").write_bytes(wheel_file("MR_small.dcm").read_bytes()[:size])
        with pytest.raises(ImagingError):
            read_identity(tmp_path / "short")


class TestImage:
    @pytest.mark.parametrize("name", ["reportsi.dcm", "rtplan.dcm", "liver_1frame.dcm"])
    def test_reports_plans_and_segmentations_are_none(self, name: str) -> None:
        assert not read_identity(wheel_file(name)).image
