"""One scan from whatever was uploaded: NIfTI, DICOM files, a zip or a folder of either, told apart by content."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from imaging.archive import extract_zip, is_junk, is_zip
from imaging.dicom_deflated import inflate, is_deflated
from imaging.dicom_file import MAGIC, PREAMBLE_BYTES, is_dicom
from imaging.dicom_series import read_dicom_series
from imaging.errors import (
    EmptyFileError,
    MixedInputError,
    TooManyBytesError,
    TooManyFilesError,
    UnknownFormatError,
    VolumeMissingError,
)
from imaging.limits import Limits
from imaging.nifti import GZIP_MAGIC, header_kind, read_nifti
from imaging.request import Request
from imaging.volume import Allocate, InMemory, Volume


def is_nifti(path: Path) -> bool:
    """Return whether the file starts as NIfTI or gzip do; nothing else that is accepted is gzip.

    DICOM may start so as well, for its first 128 bytes may be anything (part 10, 7.1).
    """
    with path.open("rb") as file:
        head = file.read(PREAMBLE_BYTES + len(MAGIC))
    if head[PREAMBLE_BYTES:] == MAGIC:
        return False
    return head.startswith(GZIP_MAGIC) or header_kind(head[:4]) is not None


def read_scan(request: Request, allocate: Allocate = InMemory) -> Volume:
    """Return the one scan that was asked for: float32 (x, y, z), affine (4, 4) in mm, RAS+.

    Raises:
        ImagingError: the subclass says why there is no scan, or more than one.
    """
    limits = request.limits
    files = _files(request.paths, limits=limits)
    if len(files) == 1 and is_zip(files[0]):
        files = extract_zip(files[0], _folder(request), limits=limits)
    elif sum(file.stat().st_size for file in files) > limits.unpacked_bytes:
        raise TooManyBytesError("the files together have too many bytes")
    if all(file.stat().st_size == 0 for file in files):
        raise EmptyFileError("the file is empty" if len(files) == 1 else "all files are empty")
    return _read_files(files, request, allocate)


def _folder(request: Request) -> Path:
    return Path(tempfile.mkdtemp(dir=request.workdir))


def _read_files(files: list[Path], request: Request, allocate: Allocate) -> Volume:
    """Read one NIfTI file or else one DICOM series; files beside DICOM that are neither are the series reader's."""
    limits, volumes = request.limits, request.volumes
    if any(is_zip(file) for file in files):
        raise MixedInputError("a zip archive beside other files")
    if any(is_nifti(file) for file in files):
        if len(files) > 1:
            raise MixedInputError("a NIfTI file beside other files")
        return read_nifti(files[0], limits=limits, volumes=volumes, allocate=allocate)
    if not any(is_dicom(file) for file in files):
        raise UnknownFormatError("neither NIfTI nor DICOM nor a zip of them")
    if len(volumes) > 1:
        raise VolumeMissingError(f"a DICOM series is one volume; {len(volumes)} channels are needed, as 4-D NIfTI")
    files = _inflated(files, request)
    return read_dicom_series(files, limits=limits, wanted=request.wanted, allocate=allocate)


def _inflated(files: list[Path], request: Request) -> list[Path]:
    """The files, the deflated ones among them replaced by what they unpack to, all of it within the budget."""
    left = request.limits.unpacked_bytes
    plain = []
    for number, file in enumerate(files):
        if is_deflated(file):
            target = _folder(request) / f"{number:04}"
            left -= inflate(file, target, left=left)
            file = target
        plain.append(file)
    return plain


def _files(paths: Sequence[Path], *, limits: Limits) -> list[Path]:
    """Return the files that ``paths`` name or hold, at least one and at most ``limits.files``."""
    files: list[Path] = []
    for path in paths:
        for file in _walk(path) if path.is_dir() else iter([path]):
            files.append(file)
            if len(files) > limits.files:
                raise TooManyFilesError(f"there are more than {limits.files} files")
    if not files:
        raise EmptyFileError("there is no file")
    return files


def _walk(folder: Path) -> Iterator[Path]:
    """Yield the plain files below ``folder`` in the order of their names; links and file-manager files are left out."""
    for path in sorted(folder.iterdir()):
        if path.is_symlink() or is_junk((path.name,)):
            continue
        if path.is_dir() and path.name != "__MACOSX":
            yield from _walk(path)
        elif path.is_file():
            yield path
