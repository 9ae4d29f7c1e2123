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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
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

CHUNK_BYTES = 1 << 20

_JOB_ID = re.compile(r"[0-9a-f]{32}")


class Content(Protocol):
    """A file of a result, wherever it is kept: its bytes, and when it was written (seconds since the epoch)."""

    @property
    def size(self) -> int:
        """Bytes."""

    @property
    def modified(self) -> float:
        """Seconds since the epoch."""

    @property
    def path(self) -> Path | None:
        """Where it is, if that is on this machine."""

    def chunks(self, *, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Its bytes from ``start`` to before ``end``, read as they are taken."""


@dataclass(frozen=True)
class FileContent:
    """A `Content` on this machine."""

    path: Path

    @property
    def size(self) -> int:
        """Bytes."""
        return self.path.stat().st_size

    @property
    def modified(self) -> float:
        """Seconds since the epoch."""
        return self.path.stat().st_mtime

    def chunks(self, *, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Its bytes from ``start`` to before ``end``, read as they are taken."""
        with self.path.open("rb") as file:
            file.seek(start)
            left = self.size - start if end is None else end - start
            while left > 0 and (chunk := file.read(min(CHUNK_BYTES, left))):
                left -= len(chunk)
                yield chunk


class Blobs:
    """Input and result files by job. Several processes may share one root; all of it is one file system.

    `jobs.objects.BucketBlobs` keeps the same in a bucket.
    """

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

    def commit_input(self, staged: Path, job_id: str) -> None:
        """Make the staged folder the job's input, durably."""
        home = self._home(job_id)
        home.mkdir(parents=True, exist_ok=True)
        _fsync_folder(self._jobs)
        _publish(staged, home / "input")

    def commit_identities(self, staged: Path, job_id: str) -> None:
        """Make the staged folder what was taken from the job's images; before its input, as that makes the job."""
        home = self._home(job_id)
        home.mkdir(parents=True, exist_ok=True)
        _publish(staged, home / "identities")

    @contextmanager
    def identities(self, job_id: str) -> Iterator[list[Path]]:
        """What was taken from the job's images, always in the same order, as files while the ``with`` block runs."""
        folder = self._home(job_id) / "identities"
        yield sorted(folder.iterdir()) if folder.is_dir() else []

    def commit_result(self, staged: Path, job_id: str, attempt: int) -> None:
        """Make the staged folder the result of one attempt, durably and all at once.

        Raises:
            JobGoneError: the job was erased.
        """
        try:
            _publish(staged, self.result_dir(job_id, attempt))
        except FileNotFoundError:
            raise JobGoneError(f"job {job_id} was erased while its result was written") from None

    def withdraw_result(self, job_id: str, attempt: int) -> None:
        """Remove the result of an attempt that turned out not to be the job's any more."""
        shutil.rmtree(self.result_dir(job_id, attempt), ignore_errors=True)

    def input_files(self, job_id: str) -> list[Path]:
        """The uploaded files, in the order they came."""
        return sorted((self._home(job_id) / "input").iterdir())

    def input_bytes(self, job_id: str) -> int:
        """Size of the uploaded files."""
        return sum(file.stat().st_size for file in self.input_files(job_id))

    @contextmanager
    def inputs(self, job_id: str) -> Iterator[list[Path]]:
        """The uploaded files, in the order they came, while the ``with`` block runs."""
        yield self.input_files(job_id)

    @contextmanager
    def results(self, job_id: str, attempt: int, names: Sequence[str]) -> Iterator[list[Path]]:
        """These files of a result, while the ``with`` block runs; one that is not there is missed when it is opened."""
        yield [self.result_dir(job_id, attempt) / name for name in names]

    def find(self, job_id: str, attempt: int, name: str) -> Content | None:
        """One file of a result; None where it is not there."""
        path = self.result_dir(job_id, attempt) / name
        return FileContent(path) if path.is_file() else None

    def ping(self) -> None:
        """Ask for an answer: of a folder, nothing."""

    def result_dir(self, job_id: str, attempt: int) -> Path:
        """Where the result of an attempt is, or would be."""
        return self._home(job_id) / f"result-{attempt}"

    def only_input(self, job_id: str) -> Content | None:
        """The uploaded file, where it was one and is there."""
        with suppress(FileNotFoundError):
            files = self.input_files(job_id)
            return FileContent(files[0]) if len(files) == 1 else None
        return None

    def scan(self, job_id: str, attempt: int) -> Content | None:
        """The job's scan as NIfTI: what a worker made of it, or the one file that was sent; None: there is none."""
        made = self.find(job_id, attempt, SCAN_FILE)
        if made is not None:
            return made
        sent = self.only_input(job_id)
        return sent if sent is not None and _starts_as_nifti(beginning(sent)) else None

    def erase_first(self, job_id: str) -> None:
        """Remove what has to be gone before the job's row is: of a folder nothing, as it does not go away."""

    def erase_last(self, job_id: str) -> None:
        """Remove what goes after the job's row."""
        self.erase(job_id)

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
        lost = [*self._lost(exists)]
        for job_id in lost:
            self.erase(job_id)
        return len(orphans) + len(lost)

    def _lost(self, exists: Callable[[str], bool]) -> Iterator[str]:
        """Jobs without a row whose files have been there for long."""
        return (one.name for one in self._jobs.iterdir() if _older(one, YOUNG_S) and not exists(one.name))

    def _home(self, job_id: str) -> Path:
        if not is_job_id(job_id):
            raise InvalidJobIdError(f"{job_id[:64]!r} is not the identifier of a job")
        return self._jobs / job_id


def beginning(content: Content) -> bytes:
    """Its first four bytes, which say what it is."""
    return b"".join(content.chunks(end=4))


def _starts_as_nifti(head: bytes) -> bool:
    """Whether a file that a worker could read was NIfTI."""
    sizes = (int.from_bytes(head, "little"), int.from_bytes(head, "big"))
    return head.startswith(GZIP_MAGIC) or not NIFTI_HEADERS.isdisjoint(sizes)


def is_job_id(text: str) -> bool:
    """Whether it can be the identifier of a job."""
    return _JOB_ID.fullmatch(text) is not None


def _publish(staged: Path, target: Path) -> None:
    for file in staged.iterdir():
        _fsync(file)
    _fsync_folder(staged)
    staged.rename(target)
    _fsync_folder(target.parent)


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
