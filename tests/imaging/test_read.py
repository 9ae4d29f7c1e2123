from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from imaging.dicom_file import is_dicom
from imaging.errors import (
    EmptyFileError,
    ImagingError,
    MixedInputError,
    TooManyBytesError,
    TooManyFilesError,
    UnknownFormatError,
)
from imaging.limits import Limits
from imaging.nifti import write_nifti
from imaging.read import is_nifti, read_scan
from imaging.request import Request
from imaging.volume import Volume

ARRAY = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
DICOM = bytes(128) + b"DICM" + b"\x02\x00\x00\x00UL\x04\x00\x00\x00\x00\x00"


@pytest.fixture
def nifti(tmp_path: Path) -> Path:
    path = tmp_path / "scan.nii.gz"
    write_nifti(path, ARRAY, np.diag([1.0, 2.0, 3.0, 1.0]))
    return path


def read(folder: Path, *paths: Path, limits: Limits | None = None) -> Volume:
    return read_scan(Request(paths, folder, limits or Limits()))


def file(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def zipped(path: Path, **files: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, source in files.items():
            archive.write(source, name)
    return path


class TestNifti:
    def test_gzip_or_not_under_any_name(self, tmp_path: Path, nifti: Path) -> None:
        write_nifti(tmp_path / "plain.nii", ARRAY, np.eye(4))
        for path in (nifti.rename(tmp_path / "0000"), (tmp_path / "plain.nii").rename(tmp_path / "x.dcm")):
            assert is_nifti(path)
            assert np.array_equal(read(tmp_path, path).array, ARRAY)

    def test_alone_in_a_zip(self, tmp_path: Path, nifti: Path) -> None:
        assert np.array_equal(read(tmp_path, zipped(tmp_path / "a.zip", scan=nifti)).array, ARRAY)

    def test_alone_in_a_folder_beside_what_file_managers_leave(self, tmp_path: Path, nifti: Path) -> None:
        folder = tmp_path / "folder"
        file(folder / "deep" / "er" / "scan", nifti.read_bytes())
        file(folder / ".DS_Store", b"x")
        file(folder / "__MACOSX" / "a", b"x")
        (folder / "link").symlink_to(nifti)
        assert np.array_equal(read(tmp_path, folder).array, ARRAY)


class TestDicom:
    def test_a_series_reads_the_same_from_files_folder_and_zip(self, tmp_path: Path, shared_data: Path) -> None:
        folder = shared_data / "dicom" / "whole_brain_t1post"
        slices = [path for path in sorted(folder.iterdir()) if is_dicom(path)]
        archive = zipped(tmp_path / "a.zip", **{f"s/{number}": path for number, path in enumerate(slices)})
        volumes = [read(tmp_path, folder), read(tmp_path, *reversed(slices)), read(tmp_path, archive)]
        for volume in volumes:
            assert np.array_equal(volume.array, volumes[0].array)
            assert np.array_equal(volume.affine, volumes[0].affine)

    def test_that_holds_nothing_is_refused_with_a_code(self, tmp_path: Path) -> None:
        with pytest.raises(ImagingError) as caught:
            read(tmp_path, file(tmp_path / "a", DICOM))
        assert str(tmp_path) not in str(caught.value)


class TestRefusals:
    def test_nothing(self, tmp_path: Path) -> None:
        (tmp_path / "folder").mkdir()
        for paths in ([], [tmp_path / "folder"], [file(tmp_path / "a", b"")], [tmp_path / "a", tmp_path / "a"]):
            with pytest.raises(EmptyFileError):
                read(tmp_path, *paths)

    def test_text(self, tmp_path: Path) -> None:
        with pytest.raises(UnknownFormatError):
            read(tmp_path, file(tmp_path / "scan.nii.gz", b"this is not a scan at all"))

    def test_several_nifti(self, tmp_path: Path, nifti: Path) -> None:
        for paths in ([nifti, nifti], [zipped(tmp_path / "a.zip", a=nifti, b=nifti)]):
            with pytest.raises(MixedInputError):
                read(tmp_path, *paths)

    def test_nifti_beside_dicom(self, tmp_path: Path, nifti: Path) -> None:
        with pytest.raises(MixedInputError):
            read(tmp_path, file(tmp_path / "a", DICOM), nifti)

    def test_a_zip_beside_other_files(self, tmp_path: Path, nifti: Path) -> None:
        with pytest.raises(MixedInputError):
            read(tmp_path, zipped(tmp_path / "a.zip", a=nifti), nifti)

    def test_more_files_than_the_limit(self, tmp_path: Path) -> None:
        for number in range(4):
            file(tmp_path / "many" / f"{number}", DICOM)
        with pytest.raises(TooManyFilesError):
            read(tmp_path, tmp_path / "many", limits=Limits(files=3))

    def test_more_bytes_than_the_limit(self, tmp_path: Path, nifti: Path) -> None:
        for path in (file(tmp_path / "a", DICOM), nifti):
            with pytest.raises(TooManyBytesError):
                read(tmp_path, path, limits=Limits(unpacked_bytes=100))
