"""The instances of each series in a bucket, for several machines that receive: ``series/<series>/<hash>``."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from ncagate.bucket import Bucket, each
from pacs.files import SeriesFiles, Stored

ROOT = Path("series")


class SeriesObjects(SeriesFiles):
    """As `SeriesFiles`; the paths are those of keys, of which `opened` makes files.

    Raises:
        StorageUnavailableError: from each method, where the bucket does not answer.
    """

    def __init__(self, root: Path, bucket: Bucket) -> None:
        super().__init__(root)
        self._bucket = bucket

    def add(self, series: str, instance: str, staged: Path) -> Stored:
        """Keep an instance. It may come again, at another machine too; the first one stays."""
        key = self._key(self.path(series, instance))
        try:
            self._bucket.put(key, staged, new=True)
        except FileExistsError:
            with staged.open("rb") as file:
                same = hashlib.file_digest(file, "sha256").digest() == _digest(self._bucket.chunks(key))
            return Stored.SAME if same else Stored.OTHER
        return Stored.NEW

    def path(self, series: str, instance: str) -> Path:
        """Where an instance is, or would be."""
        return ROOT / series / super().path(series, instance).name

    def instances(self, series: str) -> list[Path]:
        """The instances kept, in an order that depends on them alone."""
        return sorted(Path(one.key) for one in self._bucket.list(f"{self._key(ROOT / series)}/"))

    @contextmanager
    def opened(self, file: Path) -> Iterator[Path]:
        """An instance as a file, for the length of the ``with`` block."""
        with TemporaryDirectory(prefix="ncagate-") as folder:
            target = Path(folder) / file.name
            self._bucket.fetch(self._key(file), target)
            yield target

    @contextmanager
    def alone(self, series: str) -> Iterator[bool]:
        """Always: the series' lease is what keeps others away, and two that overlap make the same job of it once."""
        yield True

    def link_into(self, files: list[Path], folder: Path) -> None:
        """Fetch the files into ``folder`` as 0000, 0001, ..."""
        each(lambda one: self._bucket.fetch(self._key(one[1]), folder / f"{one[0]:04d}"), list(enumerate(files)))

    def discard(self, files: list[Path]) -> None:
        """Remove these files, and not what has come meanwhile."""
        each(lambda file: self._bucket.delete(self._key(file)), files)

    def erase(self, series: str) -> None:
        """Remove all of a series."""
        self._bucket.delete(f"{self._key(ROOT / series)}/")

    @staticmethod
    def _key(path: Path) -> str:
        return path.as_posix()


def _digest(chunks: Iterable[bytes]) -> bytes:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.digest()
