"""Unpack a zip of scans without believing anything it says of itself."""

from __future__ import annotations

import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from imaging.errors import (
    CorruptFileError,
    EmptyFileError,
    EncryptedArchiveError,
    NestedArchiveError,
    TooManyBytesError,
    TooManyFilesError,
    TruncatedFileError,
    UnknownFormatError,
    UnsafeArchivePathError,
)
from imaging.limits import Limits

ZIP_MAGICS = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")  # first entry, empty archive, spanned archive
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # an LZMA entry chooses how much memory its reader takes
ENCRYPTED_FLAGS = 0x1 | 0x40 | 0x2000  # APPNOTE 4.4.4: encrypted, strong encryption, masked header
REGULAR_KINDS = (0, stat.S_IFREG, stat.S_IFDIR)  # 0: written on a system without file kinds
JUNK_FOLDERS = frozenset({"__MACOSX"})
JUNK_FILES = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})
CHUNK_BYTES = 1 << 16  # fits a cache: a third faster than 1 MiB
TAIL_BYTES = (1 << 16) + 22 + 20 + 56  # longest comment, end record, zip64 locator, zip64 end record
END64 = b"PK\x06\x06"  # APPNOTE 4.3.14
ELSEWHERE = b"\xff" * 4  # APPNOTE 4.4.1.4: the 64-bit end record has the value
COUNTS = 1 << 16  # an end record counts entries in 16 bits; some writers of more let them overflow
DIRECTORY_BYTES_PER_FILE = 1024  # 46 and a name; zipfile reads the whole directory into memory at once


def is_zip(path: Path) -> bool:
    """Return whether the file starts as a zip does."""
    with path.open("rb") as file:
        return file.read(4) in ZIP_MAGICS


def is_junk(parts: tuple[str, ...]) -> bool:
    """Return whether a relative path, split into its parts, is what a file manager leaves behind."""
    return bool(parts) and (parts[-1] in JUNK_FILES or not JUNK_FOLDERS.isdisjoint(parts))


def extract_zip(path: Path, folder: Path, *, limits: Limits) -> list[Path]:
    """Write the files of a zip as ``folder``/0000, 0001, ... in the order of the archive and return their paths.

    Names in the archive are checked and never used. Bytes are counted as they are inflated, so a lying size costs
    nothing; every CRC is checked. After an error ``folder`` may hold some files.

    Raises:
        ImagingError: the subclass says what is wrong with the archive.
    """
    count = _check_directory(path, limits=limits)
    folder.mkdir(parents=True, exist_ok=True)
    with _open(path) as archive:
        if (len(archive.infolist()) - count) % COUNTS:
            raise CorruptFileError("the directory of the archive has another number of entries than its end says")
        entries = _entries(archive, limits=limits)
        left, written = limits.unpacked_bytes, []
        for number, entry in enumerate(entries):
            target = folder / f"{number:04}"
            left -= _extract(archive, entry, target, left=left)
            written.append(target)
    return written


def _check_directory(path: Path, *, limits: Limits) -> int:
    """Return how many entries an archive claims, modulo ``COUNTS``.

    Refuse one without an end, or with more directory than ``limits.files`` entries need.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - TAIL_BYTES))
        tail = file.read()
    if b"PK\x05\x06" not in tail:
        raise TruncatedFileError("the archive has no end")
    claims = []
    for match in re.finditer(rb"PK(?:\x05\x06.{8}(.{4})|\x06\x06.{36}(.{8}))", tail, re.DOTALL):
        if match[1] != ELSEWHERE or END64 not in tail:
            claims.append(int.from_bytes(match[1] or match[2], "little"))
    if max(claims, default=0) > limits.files * DIRECTORY_BYTES_PER_FILE:
        raise TooManyFilesError(f"the archive holds more than {limits.files} files")
    return _claimed_entries(tail)


def _claimed_entries(tail: bytes) -> int:
    """Return how many entries the archive ends by claiming, in 16 bits or, where these are all ones, in 64."""
    end, end64 = tail.rindex(b"PK\x05\x06"), tail.rfind(END64)
    claimed = int.from_bytes(tail[end + 10 : end + 12], "little")
    return int.from_bytes(tail[end64 + 32 : end64 + 40], "little") if claimed == COUNTS - 1 and end64 >= 0 else claimed


def _open(path: Path) -> zipfile.ZipFile:
    """Open the archive; its directory is bounded by ``_check_directory``."""
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError, struct.error):
        raise CorruptFileError("the directory of the archive is damaged") from None


def _entries(archive: zipfile.ZipFile, *, limits: Limits) -> list[zipfile.ZipInfo]:
    """Return the entries to unpack, each checked by what the directory says of it."""
    entries = []
    for entry in archive.infolist():
        parts = _safe_parts(entry)
        if entry.is_dir() and entry.file_size:
            raise CorruptFileError("a folder of the archive has a content")
        if entry.is_dir() or is_junk(parts):
            continue
        if entry.flag_bits & ENCRYPTED_FLAGS:
            raise EncryptedArchiveError("the archive needs a password")
        if entry.header_offset < 0:
            raise CorruptFileError("the directory of the archive is damaged")
        if entry.compress_type not in METHODS:
            raise UnknownFormatError("the archive is compressed by another method than deflate")
        entries.append(entry)
    if len(entries) > limits.files:
        raise TooManyFilesError(f"the archive holds more than {limits.files} files")
    if not entries:
        raise EmptyFileError("the archive holds no files")
    return entries


def _safe_parts(entry: zipfile.ZipInfo) -> tuple[str, ...]:
    """Return the parts of the entry's name; refuse one that leaves the archive and anything but files and folders."""
    name = entry.orig_filename.replace("\\", "/")
    parts = tuple(name.split("/"))
    if name.startswith("/") or ".." in parts or "\0" in name or re.match(r"[A-Za-z]:", name):
        raise UnsafeArchivePathError("an entry of the archive points outside of it")
    if stat.S_IFMT(entry.external_attr >> 16) not in REGULAR_KINDS:
        raise UnsafeArchivePathError("an entry of the archive is not a plain file")
    return parts


def _extract(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path, *, left: int) -> int:
    """Write one entry to ``target`` and return its bytes, at most ``left``."""
    size = 0
    with target.open("xb") as file:
        for chunk in _chunks(archive, entry):
            if size == 0 and chunk[:4] in ZIP_MAGICS:
                raise NestedArchiveError("the archive holds another archive")
            size += len(chunk)
            if size > left:
                raise TooManyBytesError("the archive unpacks to too many bytes")
            file.write(chunk)
    if size != entry.file_size:
        raise CorruptFileError("an entry of the archive has another size than its directory says")
    return size


def _chunks(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Iterator[bytes]:
    """Yield the bytes of one entry as they are inflated, at most 64 KiB at once; the last read checks the CRC."""
    try:
        with archive.open(entry) as stream:
            while chunk := stream.read(CHUNK_BYTES):
                yield chunk
    except EOFError:
        raise TruncatedFileError("an entry of the archive ends too early") from None
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, struct.error, ValueError):
        raise CorruptFileError("an entry of the archive is damaged") from None
