import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian

from imaging.dicom_deflated import inflate, is_deflated
from imaging.dicom_series import read_dicom_series
from imaging.errors import CorruptFileError, TooManyBytesError, TruncatedFileError
from imaging.limits import Limits
from imaging.read import read_scan
from imaging.request import Request

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

Series = Callable[..., list[Path]]
Find = Callable[[str], Path]
MEBI = 1024 * 1024


def deflate(path: Path) -> Path:
    """The file, rewritten by pydicom in the deflated transfer syntax."""
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    dataset.save_as(path)
    return path


def bomb(path: Path, wheel_file: Find, size: int) -> Path:
    """A deflated file whose stream holds ``size`` zeros."""
    data = wheel_file("image_dfl.dcm").read_bytes()
    start = 132 + 12 + int.from_bytes(data[140:144], "little")
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    with path.open("wb") as file:
        file.write(data[:start])
        for _ in range(size // MEBI):
            file.write(packer.compress(bytes(MEBI)))
        file.write(packer.flush())
    return path


class TestInflate:
    def test_a_deflated_series_is_that_of_its_plain_files(self, tmp_path: Path, series: Series) -> None:
        paths = series()
        plain = read_dicom_series(paths, limits=Limits())
        assert all(is_deflated(deflate(path)) for path in paths[1:])
        assert not is_deflated(paths[0])
        read = read_scan(Request(paths, tmp_path, Limits()))
        np.testing.assert_array_equal(read.array, plain.array)
        np.testing.assert_array_equal(read.affine, plain.affine)

    def test_the_plain_file_holds_what_pydicom_inflates(self, tmp_path: Path, wheel_file: Find) -> None:
        path = wheel_file("image_dfl.dcm")
        size = inflate(path, tmp_path / "plain", left=MEBI)
        assert (tmp_path / "plain").stat().st_size == size
        assert pydicom.dcmread(tmp_path / "plain").to_json_dict() == pydicom.dcmread(path).to_json_dict()

    def test_a_bomb_costs_neither_memory_nor_disk(self, tmp_path: Path, wheel_file: Find) -> None:
        path = bomb(tmp_path / "bomb", wheel_file, 300 * MEBI)
        assert path.stat().st_size < 0.4 * MEBI
        tracemalloc.start()
        try:
            with pytest.raises(TooManyBytesError):
                inflate(path, tmp_path / "plain", left=20 * MEBI)
            assert tracemalloc.get_traced_memory()[1] < MEBI
        finally:
            tracemalloc.stop()
        assert (tmp_path / "plain").stat().st_size <= 20 * MEBI

    def test_the_budget_is_that_of_all_files_together(self, tmp_path: Path, series: Series) -> None:
        paths = [deflate(path) for path in series(count=6)]
        with pytest.raises(TooManyBytesError):
            read_scan(Request(paths, tmp_path, Limits(unpacked_bytes=50_000)))

    @pytest.mark.parametrize(("keep", "error"), [(0.6, TruncatedFileError), (0.9, TruncatedFileError)])
    def test_a_stream_that_is_cut_off(
        self, tmp_path: Path, wheel_file: Find, keep: float, error: type[Exception]
    ) -> None:
        data = wheel_file("image_dfl.dcm").read_bytes()
        (tmp_path / "cut").write_bytes(data[: int(len(data) * keep)])
        with pytest.raises(error):
            inflate(tmp_path / "cut", tmp_path / "plain", left=MEBI)

    def test_a_stream_that_is_none(self, tmp_path: Path, wheel_file: Find) -> None:
        data = wheel_file("image_dfl.dcm").read_bytes()
        (tmp_path / "damaged").write_bytes(data[:400] + b"\xff" * 200 + data[600:])
        with pytest.raises(CorruptFileError):
            inflate(tmp_path / "damaged", tmp_path / "plain", left=MEBI)
