"""The instances of each series as files: ``<root>/series/<series>/<hash of the instance's identifier>``."""

from __future__ import annotations

import fcntl
import filecmp
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path

from model_store.durable import sync


class Stored(Enum):
    """What became of an instance."""

    NEW = "new"
    SAME = "same"
    OTHER = "other"  # the identifier is taken by an object with other content


class SeriesFiles:
    """Several processes may share one root, which is that of the jobs' files: nothing is copied, all is linked."""

    def __init__(self, root: Path) -> None:
        self._root = root / "series"

    def add(self, series: str, instance: str, staged: Path) -> Stored:
        """Keep an instance durably. It may come again; the first one stays."""
        folder, target = self._folder(series), self.path(series, instance)
        sync(staged)
        try:
            os.link(staged, target)
        except FileExistsError:
            return Stored.SAME if filecmp.cmp(staged, target, shallow=False) else Stored.OTHER
        sync(folder)
        return Stored.NEW

    def path(self, series: str, instance: str) -> Path:
        """Where an instance is, or would be."""
        return self._root / series / hashlib.sha256(instance.encode()).hexdigest()[:40]

    def _folder(self, series: str) -> Path:
        """The series' folder, made durably where it is new."""
        folder = self._root / series
        if not folder.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            sync(self._root)
        return folder

    def instances(self, series: str) -> list[Path]:
        """The instances kept, in an order that depends on them alone."""
        folder = self._root / series
        return sorted(folder.iterdir()) if folder.is_dir() else []

    @contextmanager
    def opened(self, file: Path) -> Iterator[Path]:
        """An instance as a file, for the length of the ``with`` block."""
        yield file

    @contextmanager
    def alone(self, series: str) -> Iterator[bool]:
        """Whether this is the only process and thread that has the series in hand meanwhile; none of them waits.

        The kernel lets go of it with the process, however that ends.
        """
        folder = self._root / series
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
        finally:
            os.close(descriptor)

    def link_into(self, files: list[Path], folder: Path) -> None:
        """Put links to the files into ``folder`` as 0000, 0001, ..."""
        for number, file in enumerate(files):
            os.link(file, folder / f"{number:04d}")

    def discard(self, files: list[Path]) -> None:
        """Remove these files, and not what has come meanwhile."""
        for file in files:
            file.unlink(missing_ok=True)

    def erase(self, series: str) -> None:
        """Remove all of a series."""
        shutil.rmtree(self._root / series, ignore_errors=True)


def set_digest(files: list[Path]) -> str:
    """Names the set of instances."""
    return hashlib.sha256("\n".join(file.name for file in files).encode()).hexdigest()
