import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from jobs.database import upgrade
from jobs.errors import INTERNAL_ERROR
from jobs.models import Job, JobRequest
from jobs.state import JobState
from model_store.manifest import Manifest
from ncagate.settings import Settings
from worker.run import Runner

ScanFile = Callable[..., Path]


class Desk:
    """A runner with a database and blobs of its own, and a way to submit."""

    def __init__(self, folder: Path) -> None:
        self.settings = Settings(data=folder, threads=1, engine="torch", attempts_max=2)
        upgrade(self.settings.database)
        self.runner = Runner(self.settings)
        self.repository, self.blobs = self.runner.repository, self.runner.blobs

    def submit(self, data: bytes, *, members: int = 3, **options: Any) -> str:
        job_id = uuid4().hex
        with self.blobs.staging() as staged:
            (staged / "0000").write_bytes(data)
            self.blobs.commit_input(staged, job_id)
        chosen = {"version": "1.0.0", "min_dice": 0.8, "seed": 0, **options}
        request = JobRequest(model="tiny", members=members, **chosen)
        self.repository.create(job_id, request)
        return job_id

    def job(self, job_id: str) -> Job:
        job = self.repository.get(job_id)
        assert job is not None
        return job


@pytest.fixture
def desk(tmp_path: Path, publish_tiny: Callable[..., Manifest]) -> Desk:
    desk = Desk(tmp_path / "data")
    publish_tiny(desk.settings.models)
    return desk


class TestRun:
    def test_a_good_scan_succeeds_with_its_files(self, desk: Desk, scan_file: ScanFile) -> None:
        job_id = desk.submit(scan_file().read_bytes())
        desk.runner.run_next()
        job = desk.job(job_id)
        assert job.state is JobState.SUCCEEDED
        assert job.result is not None
        assert json.loads(json.dumps(job.result))["model"] == "tiny"
        names = sorted(one.name for one in desk.blobs.result_dir(job_id, job.attempt).iterdir())
        assert names == ["mask.nii.gz", "preview.png", "uncertainty.nii.gz"]

    def test_the_request_decides_on_the_verdict(self, desk: Desk, scan_file: ScanFile) -> None:
        records = []
        for options in ({"rule": "nqm"}, {"rule": "conformal", "alpha": 0.2}, {"rule": "conformal", "alpha": 0.001}):
            job_id = desk.submit(scan_file().read_bytes(), members=10, min_dice=0.05, **options)
            desk.runner.run_next()
            records.append(desk.job(job_id).result or {})
        assert [(one["rule"], one["alpha"], one["verdict"]) for one in records] == [
            ("nqm", 0.05, "accept"), ("conformal", 0.2, "accept"), ("conformal", 0.001, "flag")
        ]  # fmt: skip

    def test_a_wake_up_too_many_does_nothing(self, desk: Desk, scan_file: ScanFile) -> None:
        job_id = desk.submit(scan_file().read_bytes())
        desk.runner.run_next()
        before = desk.job(job_id).finished_at
        desk.runner.run_next()
        assert desk.job(job_id).finished_at == before
        assert desk.job(job_id).attempt == 1

    def test_a_scan_that_cannot_be_read_fails_with_its_code_at_once(self, desk: Desk) -> None:
        job_id = desk.submit(b"this is text, whatever its name says")
        desk.runner.run_next()
        job = desk.job(job_id)
        assert (job.state, job.error_code, job.attempt) == (JobState.FAILED, "unknown_format", 1)

    @pytest.mark.parametrize("file", ["model.safetensors", "calibration.csv"])
    def test_a_version_that_became_corrupt_fails_the_job_by_name(
        self, desk: Desk, scan_file: ScanFile, file: str
    ) -> None:
        job_id = desk.submit(scan_file().read_bytes())
        (desk.settings.models / "tiny" / "1.0.0" / file).write_bytes(b"")
        desk.runner.run_next()
        job = desk.job(job_id)
        assert (job.state, job.error_code) == (JobState.FAILED, "version_corrupt")
        assert "tiny 1.0.0" in (job.error_detail or "")

    def test_a_broken_program_is_tried_again_and_then_ends(
        self, desk: Desk, scan_file: ScanFile, caplog: pytest.LogCaptureFixture
    ) -> None:
        job_id = desk.submit(scan_file().read_bytes())
        (desk.settings.blobs / "jobs" / job_id / "input" / "0000").unlink()
        (desk.settings.blobs / "jobs" / job_id / "input").rmdir()
        desk.runner.run_next()
        assert desk.job(job_id).state is JobState.QUEUED
        desk.runner.run_next()
        job = desk.job(job_id)
        assert (job.state, job.error_code, job.attempt) == (JobState.FAILED, INTERNAL_ERROR, 2)
        assert "broke" in caplog.text

    def test_a_cancel_reaches_a_running_job(self, desk: Desk, scan_file: ScanFile) -> None:
        job_id = desk.submit(scan_file(shape=(40, 50, 40)).read_bytes(), members=400)
        thread = threading.Thread(target=desk.runner.run_next)
        thread.start()
        deadline = time.monotonic() + 60
        while desk.job(job_id).progress == 0.0 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert desk.job(job_id).state is JobState.RUNNING
        assert desk.job(job_id).stage == "segment"
        desk.repository.request_cancel(job_id)
        thread.join(timeout=30)
        assert not thread.is_alive()
        assert desk.job(job_id).state is JobState.CANCELLED
        assert not desk.blobs.result_dir(job_id, 1).exists()

    def test_no_scratch_is_left_behind(self, desk: Desk, scan_file: ScanFile) -> None:
        for data in (scan_file().read_bytes(), b"rubbish"):
            desk.submit(data)
            desk.runner.run_next()
        assert list((desk.settings.blobs / "tmp").iterdir()) == []
