"""Hosts that have a network between them and nothing else: one whose cable is pulled loses no job."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from model_store.manifest import Manifest
from tests.chaos.servers import missing

ROOT = Path(__file__).resolve().parents[2]
RUN_S = 280.0


class TestHosts:
    def test_a_scan_crosses_the_network_and_a_pulled_cable_loses_nothing(
        self, tmp_path: Path, scan: bytes, publish_tiny: Callable[..., Manifest]
    ) -> None:
        if not all(map(shutil.which, ("unshare", "nsenter", "ip"))):
            missing("no unshare, nsenter or ip: apt-get install util-linux iproute2")
        if os.geteuid():
            pytest.skip("only root may make network namespaces, and PostgreSQL's user in them")
        publish_tiny(tmp_path / "models")
        (tmp_path / "scan.nii.gz").write_bytes(scan)
        command = ["unshare", "--net", sys.executable, "-m", "tests.scale.hosts", str(tmp_path)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=RUN_S)
        logs = "".join(one.read_text()[-1500:] for one in tmp_path.glob("*.log"))
        assert done.returncode == 0, done.stderr + logs
        assert json.loads(done.stdout.splitlines()[-1]) == {
            "first": "succeeded",
            "second": "succeeded",
            "again": True,
            "same": True,
            "erased": [204, 204],
            "left": [],
        }
