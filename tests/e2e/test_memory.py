"""What `ncagate segment` takes, process and all."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imaging.nifti import write_nifti
from model_store.manifest import Manifest
from nca.architecture import Architecture, Level

SEGMENT = """
import atexit, pathlib, sys
def peak():
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    print(next(line.split()[1] for line in lines if line.startswith("VmHWM")), file=sys.stderr)
atexit.register(peak)
from ncagate.cli import main
main()
"""
"""Not `getrusage`: its ru_maxrss begins with what the parent held when it started the child."""


@pytest.mark.usefixtures("core")
class TestProstateSize:
    def test_ten_members_on_320x320x24_peak_under_700_mb(
        self, tmp_path: Path, publish_tiny: Callable[..., Manifest]
    ) -> None:
        """Memory does not grow with steps, so there are few."""
        publish_tiny(tmp_path / "store", architecture=Architecture((Level(7, 2, (4, 4, 4)), Level(3, 3))))
        voxels = np.random.default_rng(0).normal(size=(320, 320, 24)).astype(np.float32)
        write_nifti(tmp_path / "scan.nii.gz", voxels, np.eye(4))
        arguments = ["segment", "scan.nii.gz", "--model", "tiny", "--store", "store", "--json", "records.json"]
        done = subprocess.run(
            [sys.executable, "-c", SEGMENT, *arguments, "--out", "out"],
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
        record: dict[str, Any] = json.loads((tmp_path / "records.json").read_text())[0]
        assert record["engine"] == "native"
        assert record["nqm"] is not None
        assert int(done.stderr.splitlines()[-1]) / 1024 < 700
