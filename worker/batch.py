"""Small scans of one version, one right behind the other: while the engine has one, the next is claimed and read.

Turns are kept: what follows is the job whose turn it is, or none. It is claimed no sooner than it can be worked on, but
for `AHEAD_S`, so it keeps no idle worker and nobody who is in a hurry waiting for longer.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import ExitStack
from pathlib import Path

from imaging.request import Request
from imaging.sandbox import read_in_sandbox
from imaging.volume import Volume
from jobs.blobs import Blobs
from jobs.models import Job
from worker.heart import Heart

AHEAD_S = 0.5
"""How long before the engine is free again the next job is claimed."""
BATCH_MAX = 16
"""Jobs of one batch; the next message begins another."""
SMALL_BYTES = 4 * 1024 * 1024
"""Files of a scan that is read while another is being segmented: two are in memory then."""


class Claimed:
    """A job that this process has: its heart beats until it is closed, its scan and its scratch are there as long."""

    def __init__(self, job: Job, heart: Heart) -> None:
        self.job, self.heart = job, heart
        self.read: Callable[[Request], Volume] = read_in_sandbox
        self._stack = ExitStack()
        self._stack.enter_context(heart)
        self._workdir: Path | None = None
        self._inputs: list[Path] | None = None

    def workdir(self, blobs: Blobs) -> Path:
        """An empty folder of its own, made at the first call."""
        if self._workdir is None:
            self._workdir = self._stack.enter_context(blobs.staging())
        return self._workdir

    def inputs(self, blobs: Blobs) -> list[Path]:
        """The uploaded files, fetched at the first call."""
        if self._inputs is None:
            self._inputs = self._stack.enter_context(blobs.inputs(self.job.id))
        return self._inputs

    def close(self) -> None:
        """Let go of it."""
        self._stack.close()


class Ahead:
    """Has the next job taken, aside, as soon as the scan under work will be segmented within `AHEAD_S`."""

    def __init__(self, aside: Executor, take: Callable[[], Claimed | None]) -> None:
        self._aside, self._take = aside, take
        self._began: float | None = None
        self._taking: Future[Claimed | None] | None = None

    def watch(self, stage: str, done: float) -> None:
        """As `worker.pipeline.StageCallback`, of the scan under work."""
        if stage != "segment" or self._taking is not None:
            return
        now = time.monotonic()
        if self._began is None:
            self._began = now
        elif done > 0 and (now - self._began) * (1 - done) / done <= AHEAD_S:
            self._taking = self._aside.submit(self._take)

    def result(self) -> Claimed | None:
        """The next job, its scan read; None where none was taken."""
        return None if self._taking is None else self._taking.result()
