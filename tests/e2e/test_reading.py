"""Several series, multi-frame images and scans that harm their reader, sent to a running service."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pydicom
import pytest
from nibabel.nifti1 import Nifti1Header
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedMRImageStorage

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

MIB = 1024 * 1024
FRAMES = 12


def plain(folder: Path, series: str) -> list[Path]:
    """A series of one slice a file."""
    paths = []
    for number in range(FRAMES):
        dataset = pydicom.dcmread(str(get_testdata_file("MR_small.dcm", download=False)))
        dataset.ImageOrientationPatient, dataset.PixelSpacing = [1, 0, 0, 0, 1, 0], [0.5, 0.8]
        dataset.ImagePositionPatient = [0, 0, 2 * number]
        dataset.SeriesInstanceUID, dataset.SOPInstanceUID = series, f"{series}.{number + 1}"
        paths.append(folder / f"{series}-{number}")
        dataset.save_as(paths[-1])
    return paths


def enhanced(folder: Path) -> Path:
    """The same slices as frames of one file, from the last to the first."""
    files = [pydicom.dcmread(path) for path in reversed(plain(folder, "1.2.3"))]
    one = files[0]
    one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID = EnhancedMRImageStorage
    one.NumberOfFrames = FRAMES
    one.PixelData = b"".join(file.PixelData for file in files)
    shared, orientation, measures = Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient, measures.PixelSpacing = one.ImageOrientationPatient, one.PixelSpacing
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [orientation], [measures]
    one.SharedFunctionalGroupsSequence, one.PerFrameFunctionalGroupsSequence = [shared], []
    for file in files:
        groups, position = Dataset(), Dataset()
        position.ImagePositionPatient = file.ImagePositionPatient
        groups.PlanePositionSequence = [position]
        one.PerFrameFunctionalGroupsSequence.append(groups)
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        delattr(one, keyword)
    one.save_as(folder / "enhanced")
    return folder / "enhanced"


class TestSeries:
    def test_two_that_fit_are_listed_where_the_client_waits(self, stack: Any, tmp_path: Path) -> None:
        files = [*plain(tmp_path, "1.2.3"), *plain(tmp_path, "1.2.4")]
        parts = [("scan", (file.name, file.read_bytes())) for file in files]
        answer = stack.client.post(
            "/segment", files=parts, data={"model": "tiny"}, headers={"Accept": "application/gzip"}
        )
        problem = answer.json()
        assert (answer.status_code, problem["code"]) == (422, "mixed_series")
        for series in ("1.2.3", "1.2.4"):
            assert f"{series} (MR, {FRAMES} images)" in problem["detail"]

    def test_the_one_that_is_named_is_segmented(self, stack: Any, tmp_path: Path) -> None:
        files = [*plain(tmp_path, "1.2.3"), *plain(tmp_path, "1.2.4")]
        job = stack.segment(*files, series_uid="1.2.4")
        assert job["state"] == "succeeded", job
        assert job["series_uid"] == "1.2.4"
        assert "1 other series left out." in job["warnings"]

    def test_one_that_is_not_there(self, stack: Any, tmp_path: Path) -> None:
        job = stack.segment(*plain(tmp_path, "1.2.3"), series_uid="1.2.9")
        assert (job["state"], job["error"]["code"]) == ("failed", "series_not_found")


class TestMultiframe:
    def test_the_mask_is_that_of_the_plain_series_and_there_is_a_seg(self, stack: Any, tmp_path: Path) -> None:
        masks = []
        for files in ([enhanced(tmp_path)], plain(tmp_path, "1.2.3")):
            location = stack.submit(*files)
            job = stack.finished(location)
            assert job["state"] == "succeeded", job
            masks.append(np.frombuffer(gzip.decompress(stack.mask(location))[352:], np.uint8))
            for artefact in ("mask", "report"):
                answer = stack.client.get(f"{location}/{artefact}", headers={"Accept": "application/dicom"})
                assert answer.status_code == 200
        assert masks[0].any()
        np.testing.assert_array_equal(masks[0], masks[1])


class TestHarm:
    def test_a_scan_that_takes_all_memory_takes_no_worker(
        self, served: Callable[..., AbstractContextManager[Any]], scan: Path, tmp_path: Path
    ) -> None:
        header = Nifti1Header()
        header.set_data_dtype(np.float32)
        header.set_data_shape((512, 512, 300))
        header["magic"], header["vox_offset"] = b"n+1", 352
        with gzip.open(tmp_path / "bomb.nii.gz", "wb") as file:
            file.write(bytes(header.binaryblock) + bytes(4))
            for _ in range(300):
                file.write(bytes(MIB))
        with served(NCAGATE_READ_BYTES_MAX=str(200 * MIB), NCAGATE_UNPACKED_BYTES_MAX=str(1024 * MIB)) as stack:
            worker = stack.worker_child()
            (reader,) = worker.children()
            job = stack.segment(tmp_path / "bomb.nii.gz")
            assert (job["state"], job["error"]["code"]) == ("failed", "reader_out_of_memory")
            assert job["attempt"] == 1
            assert stack.segment(scan)["state"] == "succeeded"
            assert stack.worker_child().pid == worker.pid
            assert [one.pid for one in worker.children()] == [reader.pid]

    def test_a_reader_that_is_killed_between_jobs_is_replaced(self, stack: Any, scan: Path) -> None:
        for reader in stack.worker_child().children():
            reader.kill()
            psutil.wait_procs([reader], timeout=10)
        assert stack.segment(scan)["state"] == "succeeded"
