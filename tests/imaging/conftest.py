import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
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
