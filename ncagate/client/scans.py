"""Scans as they are sent: files found on the disk, each opened only when its turn comes."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, cast

from ncagate.client.errors import ScanError
from ncagate.client.types import Progress

ScanPath = str | os.PathLike[str]
FilePart = tuple[str, tuple[str, IO[bytes], str]]
MEDIA_TYPE = "application/octet-stream"


@dataclass(frozen=True)
class Scan:
    """Files and their sizes in bytes, in the order in which they are sent."""

    files: tuple[tuple[Path, int], ...]

    def parts(self, progress: Progress | None) -> list[FilePart]:
        """The parts of a form, for one attempt. Files are sent without their names, which may be a patient's."""
        counter = _Counter(sum(size for _, size in self.files), progress)
        return [
            ("scan", (f"{number:04}", cast(IO[bytes], _File(path, size, counter)), MEDIA_TYPE))
            for number, (path, size) in enumerate(self.files)
        ]


def find_scan(source: ScanPath | Sequence[ScanPath]) -> Scan:
    """One file (NIfTI or zip), a folder of a DICOM series with all below it, or the files of one.

    Files of a folder whose names begin with a dot are left out.

    Raises:
        ScanError: there is no such file or folder, or nothing in it.
    """
    paths = [source] if isinstance(source, str | os.PathLike) else list(source)
    files = [file for one in paths for file in _files(Path(one))]
    if not files:
        raise ScanError(f"{', '.join(map(str, paths)) or 'the list'}: there is no file")
    try:
        return Scan(tuple((file, file.stat().st_size) for file in files))
    except OSError as error:
        raise ScanError(f"{error.filename}: {error.strerror}") from error


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    inside = (one for one in path.rglob("*") if not any(part.startswith(".") for part in one.relative_to(path).parts))
    return sorted(one for one in inside if one.is_file())


class _Counter:
    """Bytes of one attempt."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._sent, self._total, self._progress = 0, total, progress

    def add(self, size: int) -> None:
        self._sent += size
        if self._progress is not None:
            self._progress(self._sent, self._total)


class _File(io.RawIOBase):
    """A file that is open while it is read: a series may have more of them than a process may have open."""

    def __init__(self, path: Path, size: int, counter: _Counter) -> None:
        self._path, self._size, self._counter = path, size, counter
        self._open: BinaryIO | None = None
        self._at = 0

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = (self._size if whence == os.SEEK_END else 0) + offset
        return self._at

    def read(self, size: int = -1) -> bytes:
        try:
            if self._open is None:
                self._open = self._path.open("rb")
                self._open.seek(self._at)
            data = self._open.read(size)
        except OSError as error:
            raise ScanError(f"{self._path}: {error.strerror}") from error
        self._at += len(data)
        self._counter.add(len(data))
        if self._at > self._size or (not data and self._at < self._size):
            self.close()
            raise ScanError(f"{self._path}: it changed while it was sent")
        if not data:
            self.close()
        return data

    def close(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None
