"""Several jobs in one go: each as if it had been alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest

from imaging.nifti import write_nifti
from jobs.clients import Client
from jobs.database import upgrade
from jobs.models import Job, JobRequest
from jobs.state import JobState, Priority
from jobs.tally import Cause
from model_store.manifest import Manifest
from ncagate.settings import Settings
from worker.run import Runner

FILES = ("mask.nii.gz", "uncertainty.nii.gz")


class Desk:
    """A runner, and jobs of several clients."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.settings = Settings(data=folder, threads=1, engine="torch", **settings)
        upgrade(self.settings.database)
        self.runner = Runner(self.settings)
        self.repository, self.blobs = self.runner.repository, self.runner.blobs

    def submit(self, data: bytes, *, client: str = "ward", **options: Any) -> str:
        job_id = uuid4().hex
        with self.blobs.staging() as staged:
            (staged / "0000").write_bytes(data)
            self.blobs.commit_input(staged, job_id)
        chosen = {"model": "tiny", "version": "1.0.0", "min_dice": 0.8, "members": 3, **options}
        self.repository.seen_by(Client(client, frozenset(), "key")).create(job_id, JobRequest(**chosen))
        return job_id

    def job(self, job_id: str) -> Job:
        job = self.repository.get(job_id)
        assert job is not None
        return job

    def results(self, job_id: str) -> list[bytes]:
        folder = self.blobs.result_dir(job_id, self.job(job_id).attempt)
        return [(folder / name).read_bytes() for name in FILES]

    def states(self, jobs: Sequence[str]) -> list[str]:
        return [self.job(one).state.value for one in jobs]

    def order(self, jobs: Sequence[str]) -> list[str]:
        """The jobs, as they were taken up."""
        return sorted(jobs, key=lambda one: self.job(one).started_at or 0.0)


@pytest.fixture
def make_desk(tmp_path: Path, publish_tiny: Callable[..., Manifest]) -> Callable[..., Desk]:
    def make(name: str = "data", **settings: Any) -> Desk:
        desk = Desk(tmp_path / name, **settings)
        for version in ("1.0.0", "1.1.0"):
            publish_tiny(desk.settings.models, version=version)
        return desk

    return make


@pytest.fixture
def desk(make_desk: Callable[..., Desk]) -> Desk:
    return make_desk()


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Scans of several shapes, none like another."""
    found = []
    for number, shape in enumerate([(14, 16, 12), (17, 13, 15), (12, 12, 18), (15, 14, 13)]):
        path = tmp_path_factory.mktemp("scan") / "scan.nii.gz"
        noise = np.random.default_rng(number).normal(200, 20, shape).astype(np.float32)
        noise[4:9, 4:9, 4:9] += 100
        write_nifti(path, noise, np.eye(4))
        found.append(path.read_bytes())
    return found


class TestResults:
    def test_are_those_of_each_job_alone_byte_for_byte(
        self, make_desk: Callable[..., Desk], scans: list[bytes]
    ) -> None:
        together, alone = make_desk("together"), make_desk("alone")
        batch = [together.submit(scan, seed=seed) for seed, scan in enumerate(scans)]
        together.runner.run_next()
        assert together.states(batch) == ["succeeded"] * len(scans), "they have not gone together"
        for seed, (scan, mine) in enumerate(zip(scans, batch, strict=True)):
            one = alone.submit(scan, seed=seed)
            alone.runner.run_next()
            assert together.results(mine) == alone.results(one)
            first, second = together.job(mine).result or {}, alone.job(one).result or {}
            assert {k: v for k, v in first.items() if "seconds" not in k} == {
                k: v for k, v in second.items() if "seconds" not in k
            }

    def test_leave_no_scratch(self, desk: Desk, scans: list[bytes]) -> None:
        for scan in scans:
            desk.submit(scan)
        desk.runner.run_next()
        assert list((desk.settings.blobs / "tmp").iterdir()) == []
        assert not [one for one in threading.enumerate() if one.name.startswith("heart")]


class TestTurns:
    def test_are_those_of_single_claims(self, desk: Desk, scans: list[bytes]) -> None:
        many = [desk.submit(scans[0], client="research") for _ in range(3)]
        one = desk.submit(scans[1], client="ward")
        urgent = desk.submit(scans[2], client="research", priority=Priority.URGENT)
        desk.runner.run_next()
        assert desk.order([*many, one, urgent]) == [urgent, one, *many]

    def test_nobody_is_passed_over_for_a_job_that_goes_with_the_first(self, desk: Desk, scans: list[bytes]) -> None:
        first, other, third = (desk.submit(scans[0], version=version) for version in ("1.0.0", "1.1.0", "1.0.0"))
        desk.runner.run_next()
        assert desk.states([first, other, third]) == ["succeeded", "queued", "queued"]

    def test_a_large_scan_does_not_follow(self, desk: Desk, scans: list[bytes]) -> None:
        first, large = desk.submit(scans[0]), desk.submit(bytes(5 << 20))
        desk.runner.run_next()
        assert desk.states([first, large]) == ["succeeded", "queued"]

    def test_what_has_been_tried_before_is_alone(self, desk: Desk, scans: list[bytes]) -> None:
        tried, fresh = desk.submit(scans[0]), desk.submit(scans[1])
        job = desk.repository.claim(tried, 60.0)
        assert job is not None
        desk.repository.hand_back(tried, job.attempt, cause=Cause.BROKE)
        desk.runner.run_next()
        assert desk.states([tried, fresh]) == ["succeeded", "queued"]
        after = desk.submit(scans[2])
        job = desk.repository.claim(after, 60.0)
        assert job is not None
        desk.repository.hand_back(after, job.attempt, cause=Cause.BROKE)
        desk.runner.run_next()
        assert desk.states([fresh, after]) == ["succeeded", "queued"]

    def test_with_one_attempt_each_is_alone(self, make_desk: Callable[..., Desk], scans: list[bytes]) -> None:
        desk = make_desk(attempts_max=1)
        jobs = [desk.submit(scan) for scan in scans[:2]]
        desk.runner.run_next()
        assert desk.states(jobs) == ["succeeded", "queued"]


class TestEnds:
    def test_one_that_cannot_be_read_fails_alone(self, desk: Desk, scans: list[bytes]) -> None:
        jobs = [desk.submit(data) for data in (scans[0], b"this is text", scans[1])]
        desk.runner.run_next()
        desk.runner.run_next()
        assert desk.states(jobs) == ["succeeded", "failed", "succeeded"]
        assert desk.job(jobs[1]).error_code == "unknown_format"
        assert [desk.job(one).attempt for one in jobs] == [1, 1, 1]

    def test_a_cancel_of_the_next_one_ends_that_one(self, desk: Desk, scans: list[bytes]) -> None:
        jobs = [desk.submit(scan) for scan in scans[:3]]
        take = desk.runner._take_following

        def cancelled(leader: Job) -> Any:
            claimed = take(leader)
            if leader.id == jobs[0]:
                desk.repository.request_cancel(jobs[1])
                time.sleep(1.0)  # two beats
            return claimed

        object.__setattr__(desk.runner, "_take_following", cancelled)
        desk.runner.run_next()
        desk.runner.run_next()
        assert desk.states(jobs) == ["succeeded", "cancelled", "succeeded"]

    def test_a_stopping_process_hands_back_both(self, desk: Desk, scans: list[bytes]) -> None:
        jobs = [desk.submit(scan) for scan in scans[:2]]
        take = desk.runner._take_following

        def stopped(leader: Job) -> Any:
            claimed = take(leader)
            desk.runner.hand_back()
            return claimed

        object.__setattr__(desk.runner, "_take_following", stopped)
        desk.runner.run_next()
        assert desk.states(jobs) == ["queued", "queued"]
        assert [desk.job(one).attempt for one in jobs] == [1, 1]
        assert desk.job(jobs[0]).state is JobState.QUEUED
