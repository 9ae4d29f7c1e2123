"""`ncagate export-reviews`: the folder that comes of it is one that `ncagate evaluate` and `train` read."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest

from imaging.nifti import write_nifti
from jobs.blobs import Blobs
from jobs.clients import Client, Scope
from jobs.database import open_database, upgrade
from jobs.models import JobRequest
from jobs.repository import JobRepository
from jobs.reviews import ReviewRepository
from jobs.state import Decision
from training.data import find_cases

WARD = Client("ward", frozenset({Scope.SUBMIT}), "key 1")
WANTED = JobRequest(model="tiny", version="1.0.0", min_dice=0.8, members=1)
Done = Callable[..., str]
RESULT = {"verdict": "flag", "predicted_dice": 0.5, "nqm": 0.2}


@pytest.fixture
def jobs(tmp_path: Path) -> JobRepository:
    engine = open_database(f"sqlite:///{tmp_path / 'ncagate.db'}")
    upgrade(engine)
    return JobRepository(engine)


@pytest.fixture
def done(jobs: JobRepository, tmp_path: Path) -> Done:
    """Makes a finished job of the ward's, with a decision; its scan was sent as a file of this name."""
    blobs = Blobs(tmp_path / "blobs")

    def make(decision: Decision, *, scan: str = "scan.nii.gz", comment: str = "", volume_ml: float = 0.01) -> str:
        job_id = uuid4().hex
        voxels = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
        with blobs.staging() as folder:
            write_nifti(folder / scan, voxels, np.eye(4))
            (folder / scan).rename(folder / "0000")
            blobs.commit_input(folder, job_id)
        jobs.seen_by(WARD).create(job_id, WANTED)
        job = jobs.claim(job_id, 60.0)
        assert job is not None
        with blobs.staging() as folder:
            write_nifti(folder / "mask.nii.gz", (voxels > 12).astype(np.uint8), np.eye(4))
            blobs.commit_result(folder, job_id, job.attempt)
        assert jobs.succeed(job_id, job.attempt, {**RESULT, "volume_ml": volume_ml})
        assert ReviewRepository(jobs.engine).seen_by(WARD).add(job_id, decision, comment=comment, reviewer="AB")
        return job_id

    return make


def export(tmp_path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ncagate.cli", "export-reviews", str(tmp_path / "out"), *options],
        capture_output=True,
        text=True,
        env=os.environ | {"NCAGATE_DATA": str(tmp_path)},
    )


class TestExport:
    def test_confirmed_masks_are_labels_and_every_decision_is_a_row(self, tmp_path: Path, done: Done) -> None:
        confirmed = [done(Decision.CONFIRM, scan=name) for name in ("scan.nii.gz", "scan.nii") * 2]
        empty = done(Decision.CONFIRM, volume_ml=0.0)
        rejected = done(Decision.REJECT, comment="=1+1")
        said = export(tmp_path)
        assert said.stdout == f"6 decisions, 4 confirmed masks: {tmp_path / 'out'}\n", said.stderr
        pairs = find_cases(tmp_path / "out")
        assert sorted(image.name for image, _ in pairs) == sorted(f"{job}.nii.gz" for job in confirmed)
        assert all(path.read_bytes()[:2] == b"\x1f\x8b" for pair in pairs for path in pair)
        with (tmp_path / "out" / "reviews.csv").open() as text:
            rows = list(csv.DictReader(text))
        assert [(row["job"], row["decision"], bool(row["file"])) for row in rows] == [
            *((job, "confirm", True) for job in confirmed),
            (empty, "confirm", False),
            (rejected, "reject", False),
        ]
        assert (rows[5]["comment"], rows[5]["reviewer"], rows[5]["predicted_dice"]) == ("'=1+1", "AB", "0.5")

    def test_is_of_one_client_where_asked_and_never_mixed(self, tmp_path: Path, done: Done) -> None:
        done(Decision.CONFIRM)
        assert export(tmp_path, "--client", "other").stdout.startswith("0 decisions, 0 confirmed masks")
        again = export(tmp_path)
        assert again.returncode == 2
        assert "export_exists" in again.stderr
