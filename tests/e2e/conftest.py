"""The whole embedded service as one subprocess: real HTTP, real Redis, a real Celery worker, a real SQLite."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest

from imaging.nifti import write_nifti
from model_store.manifest import Manifest
from nca.architecture import Architecture, Level

TERMINAL = ("succeeded", "failed", "cancelled")
READY_S = 60.0
JOB_S = 60.0
SLOW = Architecture((Level(3, 500, (2, 2, 2)), Level(3, 500)), channels=8, hidden=16)
"""Takes about a second for a member on the scans here."""
ENVIRONMENT = {
    "NCAGATE_THREADS": "1",
    "NCAGATE_WORKERS": "1",
    "NCAGATE_LEASE_S": "3",
    "NCAGATE_RECONCILE_S": "0.3",
    "NCAGATE_SOFT_SHUTDOWN_S": "3",
    "NCAGATE_UNPACKED_BYTES_MAX": str(16 * 1024 * 1024),
}


class Stack:
    """A running service, seen from outside."""

    def __init__(self, process: subprocess.Popen[str], data: Path) -> None:
        self.process = process
        self.data = data
        self.client = httpx.Client(base_url=self.status()["url"], timeout=30.0)

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = json.loads((self.data / "serve.json").read_text())
        return status

    def log(self) -> str:
        return _log(self.data).read_text()

    def pid(self, name: str) -> int:
        return int(self.status()["pids"][name])

    def worker_child(self) -> psutil.Process:
        """The one process that runs jobs."""
        (child,) = psutil.Process(self.pid("worker")).children()
        return child

    def make_key(self, client: str = "ward", *options: str) -> str:
        """A key, made at the command line while the service runs."""
        command = [sys.executable, "-m", "ncagate.cli", "keys", "create", client, "--data", str(self.data), *options]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def submit(self, *files: Path, **fields: str) -> str:
        """POST a scan; the location of its job."""
        parts = [("scan", (file.name, file.read_bytes())) for file in files]
        answer = self.client.post("/segment", files=parts, data={"model": "tiny", **fields})
        assert answer.status_code == 202, answer.text
        return str(answer.headers["location"])

    def job(self, location: str) -> dict[str, Any]:
        job: dict[str, Any] = self.client.get(location).raise_for_status().json()
        return job

    def until(self, location: str, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        deadline = time.monotonic() + JOB_S
        while time.monotonic() < deadline:
            if wanted(job := self.job(location)):
                return job
            time.sleep(0.05)
        raise TimeoutError(f"the job stands at {job}")

    def finished(self, location: str) -> dict[str, Any]:
        return self.until(location, lambda job: job["state"] in TERMINAL)

    def under_way(self, location: str) -> dict[str, Any]:
        return self.until(location, lambda job: job["state"] == "running" and job["progress"] > 0)

    def segment(self, *files: Path, **fields: str) -> dict[str, Any]:
        return self.finished(self.submit(*files, **fields))

    def mask(self, location: str) -> bytes:
        return self.client.get(f"{location}/mask").raise_for_status().content

    def family(self) -> list[psutil.Process]:
        """The supervisor and everything below it."""
        supervisor = psutil.Process(self.process.pid)
        return [supervisor, *supervisor.children(recursive=True)]


def _log(data: Path) -> Path:
    return data.parent / "serve.log"


@contextmanager
def _served(data: Path, environment: dict[str, str]) -> Iterator[Stack]:
    command = [sys.executable, "-m", "ncagate.cli", "serve", "--port", "0", "--data", str(data)]
    with _log(data).open("w") as log:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, env=os.environ | ENVIRONMENT | environment
        )
    assert process.stdout is not None
    try:
        deadline = time.monotonic() + READY_S
        while not (data / "serve.json").exists():
            assert process.poll() is None, _log(data).read_text()
            assert time.monotonic() < deadline, _log(data).read_text()
            time.sleep(0.05)
        stack = Stack(process, data)
        with stack.client:
            yield stack
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        finally:
            process.stdout.close()


@pytest.fixture(scope="session")
def served(
    tmp_path_factory: pytest.TempPathFactory, publish_tiny: Callable[..., Manifest]
) -> Callable[..., AbstractContextManager[Stack]]:
    """Starts a service of its own, by default on a fresh data folder with the models `tiny` and `slow`."""

    def serve(data: Path | None = None, *, name: str = "data", **environment: str) -> AbstractContextManager[Stack]:
        if data is not None:
            return _served(data, environment)
        data = tmp_path_factory.mktemp("e2e") / name
        data.mkdir()
        publish_tiny(data / "models")
        publish_tiny(data / "models", name="slow", architecture=SLOW, parameters=SLOW.parameter_count())
        return _served(data, environment)

    return serve


@pytest.fixture(scope="module")
def stack(served: Callable[..., AbstractContextManager[Stack]]) -> Iterator[Stack]:
    """One service for all the tests of a module; Ctrl-C ends it cleanly."""
    with served() as running:
        yield running
        family = running.family()
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(30) == 0
        _, alive = psutil.wait_procs(family, timeout=10)
        assert alive == []


@pytest.fixture(scope="session")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A made-up scan, its axes permuted and flipped and its voxels not cubes."""
    path = tmp_path_factory.mktemp("scan") / "scan.nii.gz"
    affine = np.array([[0, 0, -1.5, 9], [1.0, 0, 0, 4], [0, -1.0, 0, 2], [0, 0, 0, 1]])
    array = np.random.default_rng(0).normal(200, 10, (24, 20, 18)).astype(np.float32)
    array[8:16, 6:14, 6:12] += 100
    write_nifti(path, array, affine)
    return path


@pytest.fixture(scope="session")
def large_scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A made-up scan that keeps the model `slow` busy."""
    path = tmp_path_factory.mktemp("scan") / "large.nii.gz"
    write_nifti(path, np.random.default_rng(1).normal(0, 1, (48, 48, 48)).astype(np.float32), np.eye(4))
    return path
