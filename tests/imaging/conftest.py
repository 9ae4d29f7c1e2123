import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from nibabel.affines import apply_affine
from nibabel.nifti1 import Nifti1Image
from numpy.typing import NDArray
from pydicom.data import get_testdata_file
from pydicom.dataset import FileDataset


@pytest.fixture(scope="session")
def wheel_file() -> Callable[[str], Path]:
    """A test file of the pydicom wheel by its name, never downloaded."""

    def find(name: str) -> Path:
        found = get_testdata_file(name, download=False)
        assert found is not None, name
        return Path(str(found))

    return find


@pytest.fixture
def series(tmp_path: Path, wheel_file: Callable[[str], Path]) -> Callable[..., list[Path]]:
    """Slices made of one of the wheel's, 3 mm apart; ``change(dataset, number)`` edits each."""

    def make(
        change: Callable[[FileDataset, int], object] = lambda dataset, number: None,
        count: int = 5,
        source: str = "MR_small.dcm",
    ) -> list[Path]:
        paths = []
        for number in range(count):
            dataset = pydicom.dcmread(wheel_file(source))
            dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
            dataset.ImagePositionPatient = [-10, -20, 3 * number]
            dataset.PixelSpacing = [0.5, 0.8]
            dataset.SOPInstanceUID = f"1.2.3.{number + 1}"
            change(dataset, number)
            path = tmp_path / f"{source}-{number}"
            dataset.save_as(path)
            paths.append(path)
        return paths

    return make


@pytest.fixture(scope="session")
def dcmtk() -> Callable[..., None]:
    """Run one of DCMTK's tools; without them skipped, and failed where CI=true."""
    if shutil.which("dcmcjpeg") is None:
        reason = "dcmcjpeg (Debian's dcmtk) is missing"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)

    def run(*command: str | Path) -> None:
        subprocess.run([str(one) for one in command], check=True, capture_output=True)

    return run


@pytest.fixture(scope="session")
def dcmqi_points() -> Callable[[Path, Path], list[NDArray[np.float64]]]:
    """Each segment's voxels (n, 3) in mm RAS+ of a DICOM SEG, as dcmqi reads it by way of a folder."""

    def read(path: Path, folder: Path) -> list[NDArray[np.float64]]:
        tool = str(Path(sys.executable).with_name("segimage2itkimage"))
        wanted = ["--outputDirectory", str(folder), "--outputType", "nii", "--prefix", "read"]
        subprocess.run([tool, "--inputDICOM", str(path), *wanted], check=True, capture_output=True)
        images = [Nifti1Image.from_filename(one) for one in sorted(folder.glob("read-*.nii.gz"))]
        return [apply_affine(one.affine, np.argwhere(np.asarray(one.dataobj) > 0)) for one in images]

    return read


@pytest.fixture
def iod_errors() -> Callable[[Path, str], list[str]]:
    """What David Clunie's dciodvfy finds wrong with a file of a kind; without it skipped, and failed where CI=true."""
    tool = shutil.which("dciodvfy")
    if tool is None:
        reason = "dciodvfy (Debian's dicom3tools) is missing"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)

    def check(path: Path, kind: str) -> list[str]:
        answer = subprocess.run([tool, path], check=False, capture_output=True, text=True)
        lines = (answer.stderr + answer.stdout).splitlines()
        assert kind in lines, lines
        return [line for line in lines if line.startswith(("Error", "Abort"))]

    return check
