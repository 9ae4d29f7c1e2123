"""Both sides of the reading benchmark read the same."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import UID, CTImageStorage, MRImageStorage

from benchmarks.reading import by_pydicom, make_series, measure_series, zip_by_pydicom
from imaging.limits import Limits
from imaging.read import read_scan
from imaging.request import Request

SLICES = 6


class TestSides:
    @pytest.mark.parametrize(("kind", "shift"), [(MRImageStorage, 0), (CTImageStorage, -1024)])
    def test_read_the_same_pixels(self, tmp_path: Path, kind: UID, shift: int) -> None:
        files = make_series(tmp_path / "series", kind, SLICES)
        volume = read_scan(Request(files, tmp_path, Limits()))
        theirs = by_pydicom(sorted(files))
        np.testing.assert_array_equal(volume.array.T, theirs.astype(np.float32) + shift)
        with zipfile.ZipFile(tmp_path / "series.zip", "w") as packed:
            for path in sorted(files):
                packed.write(path, path.name)
        np.testing.assert_array_equal(zip_by_pydicom(tmp_path / "series.zip"), theirs)

    def test_every_side_is_timed_and_compared(self, tmp_path: Path) -> None:
        result = measure_series(tmp_path / "series", MRImageStorage, SLICES, 1)
        assert min(result["seconds"].values()) > 0
        for side, other in (("files", "pydicom"), ("zip", "pydicom, zip")):
            assert result["ratios"][side] == pytest.approx(result["seconds"][side] / result["seconds"][other])
