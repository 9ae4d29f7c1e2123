from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from imaging.nifti import write_nifti


@pytest.fixture
def scan_file(tmp_path: Path) -> Callable[..., Path]:
    """Write a made-up scan of a bright ball in noise and return its path."""

    def make(
        name: str = "scan.nii.gz", *, shape: tuple[int, int, int] = (20, 24, 18), affine: np.ndarray | None = None
    ) -> Path:
        grid = np.indices(shape)
        centre = np.array(shape)[:, None, None, None] / 2
        ball = ((grid - centre) ** 2).sum(0) < 25
        noise = np.random.default_rng(0).normal(0, 10, shape)
        path = tmp_path / name
        write_nifti(path, (ball * 100 + 200 + noise).astype(np.float32), np.eye(4) if affine is None else affine)
        return path

    return make
