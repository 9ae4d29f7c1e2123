"""A worker that is given damaged files: the real one, on a real database, with the model that ships."""

from __future__ import annotations

import hashlib
import logging
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import psutil

from imaging import sandbox
from imaging.errors import ImagingError
from imaging.request import Request
from imaging.sandbox import read_in_sandbox
from jobs.database import upgrade
from jobs.models import Job, JobRequest
from jobs.state import JobState
from model_store.registry import Registry
from nca.errors import ImageTooLargeError, ImageTooSmallError, InvalidInputError
from ncagate.settings import Settings
from tests.fuzz.containers import DamagedError, contents
from tests.fuzz.inputs import Input
from worker.run import Runner

MIB = 1024 * 1024
MODEL = "hippocampus"
MEMBERS = 2
SEED = 0
LENIENT = {"min_dice": 0.3, "rule": "nqm"}
"""What is asked of a mask: little, so that as much as can be is accepted that should not be."""
LIMITS = {"unpacked_bytes_max": 64 * MIB, "voxels_max": 16 * MIB, "read_bytes_max": 512 * MIB, "read_seconds_max": 20}
PEAK_BYTES = 192 * MIB
"""Most that a reader may take, the 60 MiB among it that it begins with; the largest scan here has 4 MiB of voxels."""
GROWTH_BYTES = 64 * MIB
"""Most that a worker may grow once it is warm."""
REFUSALS = {one.code for one in ImagingError.__subclasses__()}
UNSTOPPABLE = {"reader_out_of_memory": "memory without bound", "reader_timeout": "time without bound"}
"""Refusals that mean that the reader had to be stopped: no damaged file of a few hundred kilobytes may cause that."""
DOCUMENTED = REFUSALS | {one.code for one in (ImageTooSmallError, ImageTooLargeError, InvalidInputError)}


@dataclass(frozen=True)
class Outcome:
    """What became of an input.

    Attributes:
        end: a code of the refusals, or else the verdict.
        wrong: what must not have happened; empty is good.
        peak_bytes: of the process that read it.
        worker_bytes: resident, of the worker after it.
    """

    number: int
    end: str
    done: str
    wrong: tuple[str, ...]
    seconds: float
    pid: int
    peak_bytes: int
    worker_bytes: int


class Errors(logging.Handler):
    """Keeps what is logged as an error."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.heard: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        cause = record.exc_info[1] if record.exc_info else None
        self.heard.append(record.getMessage() + (f": {type(cause).__name__}: {cause}" if cause else ""))

    def taken(self) -> str:
        heard, self.heard = "; ".join(self.heard), []
        return heard


class Worker:
    """Runs inputs, one after the other, each as a job of its own, and judges how each ended."""

    def __init__(self, folder: Path) -> None:
        self._peak = folder / "peak"
        self._settings = Settings(data=folder / "data", threads=1, attempts_max=1, **LIMITS)  # type: ignore[arg-type]
        self._settings.data.mkdir(parents=True)
        upgrade(self._settings.database)
        self._runner = Runner(self._settings)
        self._version = Registry(self._settings.models).resolve(MODEL).version
        self._server = self._start_server()
        self._errors = Errors()
        logging.getLogger().addHandler(self._errors)
        self._volume_of = cache(lambda scan: self._volume(scan.files))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        logging.getLogger().removeHandler(self._errors)
        sandbox._server.stop()
        self._runner.repository.close()

    def _start_server(self) -> subprocess.Popen[bytes]:
        """The process that reads for this one, with a measure of what it takes."""
        sandbox._server.stop()
        script = str(Path(__file__).with_name("measured_server.py"))
        environment = {name: os.environ[name] for name in sandbox.KEPT if name in os.environ} | sandbox.ONE_THREAD
        command = [sys.executable, "-P", script, str(self._peak)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        sandbox._server._process = process
        return process

    def run(self, given: Input) -> Outcome:
        """Send one input through all of a worker's way and judge how it ended."""
        self._peak.write_text("0", encoding="ascii")
        start = time.monotonic()
        job = self._run(given.files)
        seconds, peak = time.monotonic() - start, int(self._peak.read_text(encoding="ascii")) * 1024
        wrong = [*self._misbehaviour(job, self._errors.taken(), peak)]
        if job.state is JobState.SUCCEEDED and given.undamaged and not self._whole(given):
            wrong.append(f"wrong {(job.result or {})['verdict']}: the bytes that were read are not those of the scan")
        self._runner.repository.erase(job.id)
        self._runner.blobs.erase(job.id)
        return Outcome(
            number=given.number,
            end=job.error_code or str((job.result or {}).get("verdict", job.state)),
            done=given.done,
            wrong=tuple(wrong),
            seconds=seconds,
            pid=os.getpid(),
            peak_bytes=peak,
            worker_bytes=psutil.Process().memory_info().rss,
        )

    def _run(self, files: Sequence[bytes]) -> Job:
        job_id = uuid4().hex
        with self._runner.blobs.staging() as staged:
            _write(files, staged)
            self._runner.blobs.commit_input(staged, job_id)
        asked: dict[str, Any] = {"model": MODEL, "version": self._version, "members": MEMBERS, "seed": SEED, **LENIENT}
        self._runner.repository.create(job_id, JobRequest(**asked))
        self._runner.run_next()
        job = self._runner.repository.get(job_id)
        if job is None:
            raise LookupError("the job is gone")
        return job

    def _misbehaviour(self, job: Job, heard: str, peak: int) -> list[str]:
        """What is wrong whatever was sent."""
        wrong = [heard] if heard else []
        if job.state not in (JobState.SUCCEEDED, JobState.FAILED):
            wrong.append(f"the job was left {job.state}")
        if job.state is JobState.FAILED and job.error_code not in DOCUMENTED:
            wrong.append(f"ended with {job.error_code}")
        if job.error_code == "reader_crashed":
            wrong.append("the reader broke down")
        if job.error_code in UNSTOPPABLE:
            wrong.append(UNSTOPPABLE[job.error_code])
        if peak > PEAK_BYTES:
            wrong.append(f"memory without bound: the reader took {peak // MIB} MiB")
        if self._server.poll() is not None or sandbox._server._process is not self._server:
            wrong.append("the process that forks the readers died")
            self._server = self._start_server()
        return wrong

    def _whole(self, given: Input) -> bool:
        """Whether what could be read is one of the undamaged scans: by its bytes, and by its voxels."""
        try:
            held = contents(given.files)
        except DamagedError:
            return False
        read = self._volume(given.files)
        return any(held == contents(one.files) and read == self._volume_of(one) for one in given.undamaged)

    def _volume(self, files: Sequence[bytes]) -> str:
        """A digest of the voxels and where they lie; a refusal's code where there are none."""
        with self._runner.blobs.staging() as folder, self._runner.blobs.staging() as workdir:
            _write(files, folder)
            try:
                volume = read_in_sandbox(Request(sorted(folder.iterdir()), workdir, self._runner.limits))
            except ImagingError as error:
                return error.code
        return hashlib.sha256(volume.array.tobytes() + volume.affine.tobytes()).hexdigest()


def _write(files: Sequence[bytes], folder: Path) -> None:
    for number, data in enumerate(files):
        (folder / f"{number:04}").write_bytes(data)
