"""The files of the jobs: written aside, made durable, then renamed into place whole.

Layout: ``<root>/jobs/<job>/input/0000..``, ``<root>/jobs/<job>/result-<attempt>/`` and, of images that were stripped
of their identity, ``<root>/jobs/<job>/identities/``, locked;
scratch is ``<root>/tmp``.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from jobs.errors import InvalidJobIdError, JobGoneError

YOUNG_S = 3600.0
"""A job's folder without a row is left alone for this long: its row may be about to be inserted."""
GRACE_S = 60.0
"""Scratch younger than this is left alone: its owner may not have locked it yet."""

SCAN_FILE = "scan.nii.gz"
"""In a result: the scan as NIfTI, where it did not come as one such file."""

GZIP_MAGIC = b"\x1f\x8b"
NIFTI_HEADERS = frozenset({348, 540})
"""What a NIfTI file begins with, in either byte order: the size of its header in bytes."""

_JOB_ID = re.compile(r"[0-9a-f]{32}")


class Blobs:
    """Input and result files by job. Several processes may share one root; all of it is one file system."""

    def __init__(self, root: Path) -> None:
        self._tmp = root / "tmp"
        self._jobs = root / "jobs"

    def prepare(self) -> None:
        """Create the folders."""
        self._tmp.mkdir(parents=True, exist_ok=True)
        self._jobs.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """A private empty folder, gone on exit unless a commit renamed it away.

        It stays locked while in use, so that `sweep` in another process knows its owner is alive: the kernel
        drops the lock with the process, however that ends.
        """
        self.prepare()
        folder = self._tmp / uuid4().hex
        folder.mkdir()
        try:
            with _opened(folder) as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def commit_input(self, staged: Path, job_id: str) -> Path:
        """Make the staged folder the job's input, durably; the folder it became."""
        home = self._home(job_id)
        home.mkdir(parents=True, exist_ok=True)
        _fsync_folder(self._jobs)
        return _publish(staged, home / "input")

    def commit_identities(self, staged: Path, job_id: str) -> Path:
        """Make the staged folder what was taken from the job's images; before its input, as that makes the job."""
        home = self._home(job_id)
        home.mkdir(parents=True, exist_ok=True)
        return _publish(staged, home / "identities")

    def identities(self, job_id: str) -> list[Path]:
        """What was taken from the job's images, always in the same order."""
        folder = self._home(job_id) / "identities"
        return sorted(folder.iterdir()) if folder.is_dir() else []

    def commit_result(self, staged: Path, job_id: str, attempt: int) -> Path:
        """Make the staged folder the result of one attempt, durably and all at once; the folder it became.

        Raises:
            JobGoneError: the job was erased.
        """
        try:
            return _publish(staged, self.result_dir(job_id, attempt))
        except FileNotFoundError:
            raise JobGoneError(f"job {job_id} was erased while its result was written") from None

    def input_files(self, job_id: str) -> list[Path]:
        """The uploaded files, in the order they came."""
        return sorted((self._home(job_id) / "input").iterdir())

    def result_dir(self, job_id: str, attempt: int) -> Path:
        """Where the result of an attempt is, or would be."""
        return self._home(job_id) / f"result-{attempt}"

    def scan(self, job_id: str, attempt: int) -> Path | None:
        """The job's scan as NIfTI: what a worker made of it, or the one file that was sent; None: there is none."""
        made = self.result_dir(job_id, attempt) / SCAN_FILE
        if made.is_file():
            return made
        with suppress(FileNotFoundError):
            files = self.input_files(job_id)
            if len(files) == 1 and _starts_as_nifti(files[0]):
                return files[0]
        return None

    def erase(self, job_id: str) -> None:
        """Remove all files of a job; they vanish at once, the disk space follows."""
        grave = self._tmp / uuid4().hex
        with suppress(FileNotFoundError):
            self._home(job_id).rename(grave)
        shutil.rmtree(grave, ignore_errors=True)

    def sweep(self, exists: Callable[[str], bool]) -> int:
        """Remove what crashed processes left: scratch without an owner, old job folders without a row.

        ``exists`` says whether a job has a row. Returns the number of folders removed.
        """
        self.prepare()
        orphans = [one for one in self._tmp.iterdir() if _older(one, GRACE_S) and _unlocked(one)]
        for folder in orphans:
            shutil.rmtree(folder, ignore_errors=True)
        lost = [one.name for one in self._jobs.iterdir() if _older(one, YOUNG_S) and not exists(one.name)]
        for job_id in lost:
            self.erase(job_id)
        return len(orphans) + len(lost)

    def _home(self, job_id: str) -> Path:
        if not _JOB_ID.fullmatch(job_id):
            raise InvalidJobIdError(f"{job_id[:64]!r} is not the identifier of a job")
        return self._jobs / job_id


def _starts_as_nifti(path: Path) -> bool:
    """Whether a file that a worker could read was NIfTI."""
    with path.open("rb") as file:
        head = file.read(4)
    sizes = (int.from_bytes(head, "little"), int.from_bytes(head, "big"))
    return head.startswith(GZIP_MAGIC) or not NIFTI_HEADERS.isdisjoint(sizes)


def _publish(staged: Path, target: Path) -> Path:
    for file in staged.iterdir():
        _fsync(file)
    _fsync_folder(staged)
    staged.rename(target)
    _fsync_folder(target.parent)
    return target


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _fsync(path: Path) -> None:
    with _opened(path) as descriptor:
        os.fsync(descriptor)


_fsync_folder = _fsync  # a folder's entries become durable the same way on POSIX


def _older(path: Path, seconds: float) -> bool:
    with suppress(FileNotFoundError):
        return time.time() - path.stat().st_mtime > seconds
    return False


def _unlocked(folder: Path) -> bool:
    with suppress(OSError), _opened(folder) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False
