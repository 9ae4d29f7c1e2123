"""What only a worker can refuse: the job fails with its own code and the service goes on."""

from __future__ import annotations

import gzip
import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Header, Nifti1Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage, generate_uid

MIB = 1024 * 1024


def nifti(array: np.ndarray, affine: np.ndarray | None = None) -> bytes:
    data: bytes = Nifti1Image(array, np.eye(4) if affine is None else affine).to_bytes()
    return data


def good() -> bytes:
    return gzip.compress(nifti(np.random.default_rng(0).normal(0, 1, (16, 16, 16)).astype(np.float32)))


def flipped_checksum() -> bytes:
    data = bytearray(good())
    data[-8] ^= 1
    return bytes(data)


def huge_claim() -> bytes:
    header = Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape((700, 700, 700))
    header["magic"], header["vox_offset"] = b"n+1", 352
    data = gzip.compress(bytes(header.binaryblock))
    assert len(data) < 200
    return data


def with_nan() -> bytes:
    array = np.zeros((16, 16, 16), np.float32)
    array[3, 4, 5] = np.nan
    return nifti(array)


def singular() -> bytes:
    data = bytearray(nifti(np.zeros((16, 16, 16), np.float32)))
    data[280:328] = struct.pack("<12f", 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0)  # srow_x and srow_y are the same
    return bytes(data)


def zipped(*entries: tuple[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return buffer.getvalue()


def dicom_slices(positions: list[float], *, series: str | None = None) -> list[tuple[str, bytes]]:
    """One file for each position (mm) along z."""
    series, study, frame = series or generate_uid(), generate_uid(), generate_uid()
    return [(f"{i:03d}", _dicom_slice(z, series, study, frame)) for i, z in enumerate(positions)]


def _dicom_slice(z: float, series: str, study: str, frame: str) -> bytes:
    one = Dataset()
    one.SOPClassUID, one.SOPInstanceUID = MRImageStorage, generate_uid()
    one.Modality, one.PatientID, one.PatientName = "MR", "nobody", "Nobody"
    one.StudyInstanceUID, one.SeriesInstanceUID, one.FrameOfReferenceUID = study, series, frame
    one.Rows = one.Columns = 16
    one.PixelSpacing, one.SliceThickness = [1.0, 1.0], 1.0
    one.ImageOrientationPatient, one.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, z]
    one.SamplesPerPixel, one.PhotometricInterpretation, one.PixelRepresentation = 1, "MONOCHROME2", 0
    one.BitsAllocated = one.BitsStored = 16
    one.HighBit = 15
    one.PixelData = np.random.default_rng(int(z)).integers(0, 500, (16, 16), np.uint16).tobytes()
    one.file_meta = FileMetaDataset()
    one.file_meta.MediaStorageSOPClassUID, one.file_meta.MediaStorageSOPInstanceUID = MRImageStorage, one.SOPInstanceUID
    one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    buffer = io.BytesIO()
    one.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def dicomdir() -> bytes:
    one = Dataset()
    one.file_meta = FileMetaDataset()
    one.file_meta.MediaStorageSOPClassUID = UID("1.2.840.10008.1.3.10")
    one.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one.DirectoryRecordSequence = []
    buffer = io.BytesIO()
    one.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


SLICES = [float(z) for z in range(16)]
BAD: dict[str, tuple[str, Callable[[], bytes]]] = {
    "text named .nii.gz": ("unknown_format", lambda: b"this is no scan\n" * 50),
    "truncated gzip": ("truncated_file", lambda: good()[:-2000]),
    "bit-flipped gzip": ("corrupt_file", flipped_checksum),
    "tiny file that claims 700^3 voxels": ("too_many_voxels", huge_claim),
    "2-D": ("not_three_dimensional", lambda: nifti(np.zeros((16, 16), np.float32))),
    "several volumes": ("several_volumes", lambda: nifti(np.zeros((8, 8, 8, 3), np.float32))),
    "NaN voxels": ("non_finite_voxels", with_nan),
    "singular affine": ("singular_affine", singular),
    "zip bomb": ("too_many_bytes", lambda: zipped(("scan.nii", bytes(64 * MIB)))),
    "zip that climbs out": ("unsafe_archive_path", lambda: zipped(("../scan.nii.gz", good()))),
    "missing slice": ("missing_slice", lambda: zipped(*dicom_slices([z for z in SLICES if z != 7]))),
    "two series": (
        "mixed_series",
        lambda: zipped(*dicom_slices(SLICES), *((f"b{name}", data) for name, data in dicom_slices(SLICES))),
    ),
    "DICOMDIR": ("dicomdir_unsupported", dicomdir),
}


class TestBadInput:
    @pytest.mark.parametrize("kind", BAD)
    def test_the_job_fails_with_its_own_code(self, stack: Any, tmp_path: Path, kind: str) -> None:
        code, make = BAD[kind]
        path = tmp_path / "scan.nii.gz"
        path.write_bytes(make())
        worker = stack.worker_child().pid
        job = stack.segment(path)
        assert (job["state"], job["error"]["code"]) == ("failed", code), job
        assert job["attempt"] == 1
        assert str(tmp_path) not in job["error"]["detail"]
        assert "Nobody" not in job["error"]["detail"]
        assert stack.worker_child().pid == worker

    def test_the_service_goes_on(self, stack: Any, scan: Path) -> None:
        assert stack.segment(scan)["state"] == "succeeded"

    def test_a_whole_dicom_series_is_fine(self, stack: Any, tmp_path: Path) -> None:
        files = []
        for name, data in dicom_slices(SLICES):
            (tmp_path / name).write_bytes(data)
            files.append(tmp_path / name)
        assert stack.segment(*files)["state"] == "succeeded"
