"""Every file of the pydicom and nibabel wheels' test data has an expected outcome, and none harms the reader.

What is expected, and why, stands in `wheel_files.txt`; a file that a new wheel brings fails until it is listed there.
"""

import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel
import numpy as np
import psutil
import pydicom
import pytest
from pydicom.pixels.processing import apply_modality_lut

from imaging import sandbox
from imaging.errors import ImagingError
from imaging.limits import GIBI, Limits
from imaging.request import Request
from imaging.sandbox import read_in_sandbox
from imaging.volume import Volume

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

PYDICOM = Path(pydicom.__file__).parent / "data" / "test_files"
NIBABEL = Path(nibabel.__file__).parent
LIMITS = Limits(memory=GIBI, seconds=20)
ALONE = {"DICOMDIR": "dicomdir_unsupported", "not DICOM": "unknown_format"}
"""Refusal of a file that would be left out beside images; of other kinds it is no_dicom_images."""
SERIES = {
    "dicomdirtests/98892001/CT5N": "(16, 16, 5)",
    "dicomdirtests/98892001/CT2N": "mixed_geometry",
    "dicomdirtests/77654033/CT2": "missing_slice",
    "dicomdirtests/77654033": "mixed_series",
    "dicomdirtests/98892003/MR700": "mixed_geometry",
    "dicomdirtests/98892003": "mixed_series",
    "dicomdirtests": "truncated_file",
}
"""Folders of several images: the volume's shape, or the refusal."""
UNDECODABLE = {
    "pydicom/MR_truncated.dcm": "its pixels are cut off",
    "pydicom/JPEG2000-embedded-sequence-delimiter.dcm": "its codestream claims 3,722,445,056 columns",
    "nibabel/nicom/tests/data/csa_slice_norm.dcm": "it has none",
}
"""Single slices whose pixels cannot be read; those of all others can."""


def listed() -> Iterator[tuple[str, str]]:
    """Each file's name and outcome."""
    outcome = ""
    for line in (Path(__file__).parent / "wheel_files.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("    "):
            yield line.strip(), outcome
        elif line and not line.startswith("#"):
            outcome, why = line.split(": ")
            assert re.fullmatch(r"read|skipped as [\w ]+|refused with [a-z_]+", outcome), outcome
            assert why


TABLE = dict(listed())
SINGLE = [name for name, outcome in TABLE.items() if outcome == "refused with single_slice"]


def path_of(name: str) -> Path:
    wheel, _, rest = name.partition("/")
    return {"pydicom": PYDICOM, "nibabel": NIBABEL}[wheel] / rest


def read(folder: Path, *paths: Path) -> Volume:
    return read_in_sandbox(Request(paths, folder, LIMITS))


def outcome_of(folder: Path, *paths: Path) -> str:
    try:
        return str(read(folder, *paths).array.shape)
    except ImagingError as error:
        return error.code


@pytest.fixture(autouse=True)
def reader_survives() -> Iterator[None]:
    """The process that forks the readers is the same before and after, and idle."""
    sandbox.start_sandbox()
    before = sandbox._server._process
    yield
    assert before is not None
    assert sandbox._server._process is before
    assert before.poll() is None
    assert psutil.Process(before.pid).children() == []


class TestTable:
    def test_lists_every_file_once(self) -> None:
        folders = [PYDICOM, *(one for one in NIBABEL.rglob("data") if one.parent.name == "tests")]
        there = [
            f"{wheel}/{path.relative_to(base).as_posix()}"
            for wheel, base in (("pydicom", PYDICOM), ("nibabel", NIBABEL))
            for folder in folders
            if folder.is_relative_to(base)
            for path in folder.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        ]
        assert len(there) > 280
        assert sorted(there) == sorted(name for name, _ in listed())

    @pytest.mark.parametrize("name", TABLE)
    def test_alone(self, tmp_path: Path, name: str) -> None:
        what, _, kind = TABLE[name].partition(" as ")
        got = outcome_of(tmp_path, path_of(name))
        if what == "skipped":
            assert got == ALONE.get(kind, "no_dicom_images")
        elif what == "read":
            assert re.fullmatch(r"\(\d+, \d+, \d+\)", got)
        else:
            assert f"refused with {got}" == what

    @pytest.mark.parametrize("name", [name for name, outcome in TABLE.items() if outcome.startswith("skipped")])
    def test_what_is_skipped_is_told_beside_a_series(
        self, tmp_path: Path, series: Callable[..., list[Path]], name: str
    ) -> None:
        volume = read(tmp_path, path_of(name), *series(count=3))
        kind = TABLE[name].removeprefix("skipped as ")
        assert volume.warnings == (f"1 file without an image left out: 1 {kind}.",)
        assert volume.array.shape == (64, 64, 3)


class TestPixels:
    """Every single slice, made two by a copy 3 mm away: its pixels are those that pydicom reads."""

    @pytest.mark.parametrize("name", SINGLE)
    def test_are_decoded(self, tmp_path: Path, name: str) -> None:
        paths = [tmp_path / "0", tmp_path / "1"]
        for number, path in enumerate(paths):
            dataset = pydicom.dcmread(path_of(name))
            dataset.ImageOrientationPatient, dataset.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 3 * number]
            dataset.PixelSpacing = [1, 1]
            dataset.save_as(path)
        if name in UNDECODABLE:
            assert outcome_of(tmp_path, *paths) == "undecodable_pixels"
            return
        volume = read(tmp_path, *paths)
        dataset = pydicom.dcmread(path_of(name))
        if dataset.file_meta.TransferSyntaxUID.name.startswith("JPEG Extended"):  # pydicom has no decoder for it
            assert volume.array.max() == 264  # as in dcmdjpeg's
            return
        expected = apply_modality_lut(dataset.pixel_array, dataset).astype(np.float32)
        if dataset.PhotometricInterpretation == "MONOCHROME1":
            expected = -expected
        for k in range(2):
            np.testing.assert_array_equal(volume.array[:, :, k], expected.T)


class TestOrder:
    @pytest.mark.parametrize("folder", SERIES)
    def test_of_files_never_matters(self, tmp_path: Path, folder: str) -> None:
        paths = sorted(path for path in (PYDICOM / folder).rglob("*") if path.is_file())
        dice = random.Random(11)
        for _ in range(6):
            assert outcome_of(tmp_path, *paths) == SERIES[folder]
            dice.shuffle(paths)

    def test_nor_does_it_change_a_voxel(self, tmp_path: Path) -> None:
        paths = sorted((PYDICOM / "dicomdirtests/98892001/CT5N").iterdir())
        first = read(tmp_path, *paths)
        dice = random.Random(12)
        for _ in range(10):
            dice.shuffle(paths)
            again = read(tmp_path, *paths)
            np.testing.assert_array_equal(again.array, first.array)
            np.testing.assert_array_equal(again.affine, first.affine)
            assert again.source == first.source
