"""A candidate in the shadow of production: one worker process, real scans, real files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.database import upgrade
from jobs.models import JobRequest
from jobs.shadow import Comparison, Pair, Shadows
from jobs.state import JobState
from model_store.manifest import Manifest
from model_store.registry import CANDIDATE, PRODUCTION, Registry
from ncagate.settings import Settings
from worker import shadow
from worker.run import Runner

ScanFile = Callable[..., Path]
Publish = Callable[..., Manifest]
PAIR = Pair("tiny", "1.0.0", "2.0.0")


class Desk:
    """A runner whose model has a candidate, and a way to submit."""

    def __init__(self, folder: Path, publish: Publish, *, seed: int = 7, share: float = 1.0) -> None:
        self.settings = Settings(data=folder, threads=1, engine="torch", shadow_share=share)
        upgrade(self.settings.database)
        self.stopping = False
        self.runner = Runner(self.settings, stopping=lambda: self.stopping)
        self.jobs, self.blobs = self.runner.repository, self.runner.blobs
        publish(self.settings.models)
        publish(self.settings.models, version="2.0.0", seed=seed)
        self.registry = Registry(self.settings.models, shipped=None)
        self.registry.set_alias("tiny", PRODUCTION, "1.0.0")
        self.registry.set_alias("tiny", CANDIDATE, "2.0.0")

    def submit(self, scan: Path, *, number: int = 0) -> str:
        job_id = f"{number:032x}"
        with self.blobs.staging() as staged:
            (staged / "0000").write_bytes(scan.read_bytes())
            self.blobs.commit_input(staged, job_id)
        self.jobs.create(job_id, JobRequest(model="tiny", version="1.0.0", min_dice=0.8, members=10))
        return job_id

    def result(self, job_id: str) -> dict[str, bytes]:
        job = self.jobs.get(job_id)
        assert job is not None
        assert (job.state, job.attempt) == (JobState.SUCCEEDED, 1)
        return {one.name: one.read_bytes() for one in self.blobs.result_dir(job_id, 1).iterdir()}

    def found(self) -> Comparison:
        return Shadows(self.jobs.engine).compare(PAIR)


@pytest.fixture
def desk(tmp_path: Path, publish_tiny: Publish) -> Desk:
    return Desk(tmp_path / "data", publish_tiny)


class TestShadow:
    def test_the_same_weights_agree_wholly(self, tmp_path: Path, publish_tiny: Publish, scan_file: ScanFile) -> None:
        desk = Desk(tmp_path / "data", publish_tiny, seed=0)
        desk.submit(scan_file())
        desk.runner.run_next()
        found = desk.found()
        assert (found.jobs, found.dice, found.nqm, found.predicted_dice, found.verdicts_changed) == (
            1,
            1.0,
            0.0,
            0.0,
            0,
        )
        assert found.slowdown is not None

    def test_other_weights_are_found_out_and_touch_no_result(
        self, desk: Desk, tmp_path: Path, publish_tiny: Publish, scan_file: ScanFile
    ) -> None:
        scan = scan_file()
        alone = Desk(tmp_path / "alone", publish_tiny, share=0.0)
        for one in (desk, alone):
            one.submit(scan)
            one.runner.run_next()
        assert alone.found().jobs == 0
        found = desk.found()
        assert found.dice is not None
        assert found.dice < 0.999
        assert desk.result("0" * 32) == alone.result("0" * 32)
        assert list((desk.settings.blobs / "tmp").iterdir()) == []

    def test_waits_until_no_job_does(self, desk: Desk, scan_file: ScanFile, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("worker.run.BATCH_MAX", 1)
        scan = scan_file()
        for number in range(2):
            desk.submit(scan, number=number)
        desk.runner.run_next()
        assert desk.found().jobs == 0
        desk.runner.run_next()
        assert desk.found().jobs == 2

    def test_is_not_run_by_a_worker_that_stops(self, desk: Desk, scan_file: ScanFile) -> None:
        job_id = desk.submit(scan_file())
        desk.stopping = True
        desk.runner.run_next()
        assert desk.result(job_id)
        assert Shadows(desk.jobs.engine).pairs() == []

    def test_of_production_itself_is_none(self, desk: Desk, scan_file: ScanFile) -> None:
        desk.registry.set_alias("tiny", CANDIDATE, "1.0.0")
        desk.submit(scan_file())
        desk.runner.run_next()
        assert Shadows(desk.jobs.engine).pairs() == []


class TestBadCandidate:
    def test_a_damaged_one_is_told_and_the_job_stands(self, desk: Desk, scan_file: ScanFile) -> None:
        (desk.settings.models / "tiny" / "2.0.0" / "model.safetensors").write_bytes(b"{")
        job_id = desk.submit(scan_file())
        desk.runner.run_next()
        assert desk.found().outcomes == {"version_corrupt": 1}
        assert desk.result(job_id)

    def test_damaged_aliases_end_no_worker(self, desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
        (desk.settings.models / "tiny" / "aliases.json").write_text("{")
        shadow.ShadowRunner(desk.runner, lambda: False).run_idle("tiny")
        assert "no shadow run of tiny: version_corrupt" in caplog.text

    def test_one_that_takes_too_long_is_stopped(
        self, desk: Desk, scan_file: ScanFile, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(shadow, "SLOWER_MAX", 0.0)
        monkeypatch.setattr(shadow, "SLOWER_S", 0.0)
        job_id = desk.submit(scan_file())
        desk.runner.run_next()
        assert desk.found().outcomes == {"too_slow": 1}
        assert desk.result(job_id)

    def test_one_whose_job_was_erased_leaves_no_trace(self, desk: Desk, scan_file: ScanFile) -> None:
        job_id = desk.submit(scan_file())
        desk.stopping = True
        desk.runner.run_next()
        desk.blobs.erase(job_id)  # files first, as an erasure that is under way
        desk.stopping = False
        shadow.ShadowRunner(desk.runner, lambda: False).run_idle("tiny")
        assert desk.found().outcomes == {"internal_error": 1}
        assert desk.jobs.erase(job_id)
        assert desk.found().outcomes == {}
