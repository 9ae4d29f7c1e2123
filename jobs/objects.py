"""The files of the jobs in a bucket, for gateways and workers that share no disk.

Keys: ``jobs/<job>/input/0000..``, ``jobs/<job>/identities/..`` and ``jobs/<job>/result-<attempt>/..``, as the folders
of `jobs.blobs`. A bucket knows no rename; the row stands in for it. An input is put before the row that makes it a job,
a result before the row that names its attempt, and nothing that no row names is ever read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from jobs.blobs import YOUNG_S, Blobs, Content, is_job_id
from ncagate.bucket import Bucket, Info, each
from ncagate.settings import Settings


@dataclass(frozen=True)
class ObjectContent:
    """A `Content` in a bucket: streamed, part by part."""

    bucket: Bucket
    info: Info
    path: None = None

    @property
    def size(self) -> int:
        """Bytes."""
        return self.info.size

    @property
    def modified(self) -> float:
        """Seconds since the epoch."""
        return self.info.modified

    def chunks(self, *, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Its bytes from ``start`` to before ``end``, read as they are taken."""
        return self.bucket.chunks(self.info.key, start=start, end=end)


class BucketBlobs(Blobs):
    """Input and result files by job, in a bucket; what is under way lies in a folder of this machine.

    Raises:
        StorageUnavailableError: from every method but `staging` and `prepare`, where the bucket does not answer.
    """

    def __init__(self, root: Path, bucket: Bucket) -> None:
        super().__init__(root)
        self._bucket = bucket

    def commit_input(self, staged: Path, job_id: str) -> None:
        """Put the staged files as the job's input."""
        self._put(staged, self._key(job_id, "input"))

    def commit_identities(self, staged: Path, job_id: str) -> None:
        """Put the staged files as what was taken from the job's images; before its input."""
        self._put(staged, self._key(job_id, "identities"))

    def commit_result(self, staged: Path, job_id: str, attempt: int) -> None:
        """Put the staged files as the result of one attempt; nobody reads them before the row says so."""
        self._put(staged, self._key(job_id, f"result-{attempt}"))

    def withdraw_result(self, job_id: str, attempt: int) -> None:
        """Remove the result of an attempt that turned out not to be the job's any more."""
        self._bucket.delete(self._key(job_id, f"result-{attempt}"))

    @contextmanager
    def identities(self, job_id: str) -> Iterator[list[Path]]:
        """What was taken from the job's images, fetched for the length of the ``with`` block."""
        with self._fetched(self._listed(self._key(job_id, "identities"))) as files:
            yield files

    def input_bytes(self, job_id: str) -> int:
        """Size of the uploaded files."""
        return sum(one.size for one in self._bucket.list(self._key(job_id, "input")))

    @contextmanager
    def inputs(self, job_id: str) -> Iterator[list[Path]]:
        """The uploaded files, fetched for the length of the ``with`` block.

        Raises:
            FileNotFoundError: there are none.
        """
        keys = self._listed(self._key(job_id, "input"))
        if not keys:
            raise FileNotFoundError(f"job {job_id} has no input")
        with self._fetched(keys) as files:
            yield files

    @contextmanager
    def results(self, job_id: str, attempt: int, names: Sequence[str]) -> Iterator[list[Path]]:
        """These files of a result, fetched for the length of the ``with`` block.

        Raises:
            FileNotFoundError: one is not there.
        """
        with self._fetched([self._key(job_id, f"result-{attempt}") + name for name in names]) as files:
            yield files

    def find(self, job_id: str, attempt: int, name: str) -> Content | None:
        """One file of a result; None where it is not there."""
        info = self._bucket.info(self._key(job_id, f"result-{attempt}") + name)
        return None if info is None else ObjectContent(self._bucket, info)

    def only_input(self, job_id: str) -> Content | None:
        """The uploaded file, where it was one and is there."""
        found = list(islice(self._bucket.list(self._key(job_id, "input")), 2))
        return ObjectContent(self._bucket, found[0]) if len(found) == 1 else None

    def erase_first(self, job_id: str) -> None:
        """Remove all objects of the job: where the bucket does not answer its row stays, to be erased again."""
        self.erase(job_id)

    def erase_last(self, job_id: str) -> None:
        """Nothing is left."""

    def erase(self, job_id: str) -> None:
        """Remove all objects of a job."""
        self._bucket.delete(self._key(job_id))

    def ping(self) -> None:
        """Ask for an answer."""
        self._bucket.ping()

    def _lost(self, exists: Callable[[str], bool]) -> Iterator[str]:
        for job_id in filter(is_job_id, self._bucket.folders("jobs/")):
            if not exists(job_id) and self._age(job_id) > YOUNG_S:  # a row is asked for cheaper than a list
                yield job_id

    def _age(self, job_id: str) -> float:
        return time.time() - max((one.modified for one in self._bucket.list(self._key(job_id))), default=0.0)

    def _put(self, staged: Path, prefix: str) -> None:
        each(lambda file: self._bucket.put(prefix + file.name, file), sorted(staged.iterdir()))

    def _listed(self, prefix: str) -> list[str]:
        return [one.key for one in self._bucket.list(prefix)]

    @contextmanager
    def _fetched(self, keys: Sequence[str]) -> Iterator[list[Path]]:
        with ExitStack() as stack:
            if not keys:
                yield []
                return
            folder = stack.enter_context(self.staging())
            targets = {key: folder / key.rpartition("/")[2] for key in keys}
            each(lambda key: self._bucket.fetch(key, targets[key]), keys)
            yield list(targets.values())

    def _key(self, job_id: str, part: str = "") -> str:
        home = f"jobs/{self._home(job_id).name}/"
        return f"{home}{part}/" if part else home


def open_blobs(settings: Settings) -> Blobs:
    """Where this deployment keeps the files of its jobs."""
    if settings.blobs_url is None:
        return Blobs(settings.blobs)
    return BucketBlobs(settings.blobs, Bucket(settings.blobs_url))
