"""What gzip and zip files hold, found without the code under test: the judge of whether a damaged file was taken.

A file is whole where its sizes and checksums hold. Fields that say nothing of the content (times, names, comments) are
not looked at.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence

GZIP = b"\x1f\x8b"
ENTRY, LOCAL, END = b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06"
EXTRA, NAME, COMMENT, HEADER_CRC = 0x04, 0x08, 0x10, 0x02
RUBBISH = (".DS_Store", "Thumbs.db", "desktop.ini")


class DamagedError(Exception):
    """A container that does not hold what it says."""


def kind_of(data: bytes) -> str | None:
    """Return "gzip", "zip" or None, by the first bytes."""
    if data.startswith(GZIP):
        return "gzip"
    return "zip" if data.startswith(LOCAL) else None


def contents(files: Sequence[bytes]) -> tuple[bytes, ...]:
    """Return what the files hold, containers in containers unpacked, sorted: the order of files has no meaning.

    Raises:
        DamagedError: a checksum or a size does not hold.
    """
    found: list[bytes] = []
    for data in files:
        kind = kind_of(data)
        inner = [data] if kind is None else unpack(data)
        found += inner if kind is None else contents(inner)
    return tuple(sorted(found))


def unpack(data: bytes) -> list[bytes]:
    """Return what one container holds, its checksums verified."""
    try:
        return [b"".join(_members(data))] if kind_of(data) == "gzip" else [one for _, one in zip_entries(data)]
    except (struct.error, zlib.error, IndexError, ValueError) as error:
        raise DamagedError(str(error)) from None


def _members(data: bytes) -> Iterator[bytes]:
    """Yield what each gzip member holds (RFC 1952); zeros may follow the last."""
    while data:
        if not data.startswith(GZIP) or data[2] != 8:
            raise DamagedError("no gzip member")
        content, data = _inflated(data[_header_bytes(data) :])
        checksum, size = struct.unpack("<LL", data[:8])
        if (checksum, size) != (zlib.crc32(content), len(content) & 0xFFFFFFFF):
            raise DamagedError("the checksum of gzip does not hold")
        data = data[8:].lstrip(b"\0")
        yield content


def _header_bytes(data: bytes) -> int:
    flags, at = data[3], 10
    if flags & EXTRA:
        at += 2 + int.from_bytes(data[at : at + 2], "little")
    for field in (NAME, COMMENT):
        if flags & field:
            at = data.index(b"\0", at) + 1
    return at + 2 if flags & HEADER_CRC else at


def _inflated(data: bytes) -> tuple[bytes, bytes]:
    """Return what a deflate stream holds, and the bytes after it."""
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    content = stream.decompress(data)
    if not stream.eof:
        raise DamagedError("the deflate stream ends too early")
    return content, stream.unused_data


def zip_entries(data: bytes) -> list[tuple[str, bytes]]:
    """Return the names and contents of a zip's files, folders and a file manager's leavings aside (APPNOTE 4.3)."""
    end = data.rindex(END)
    size, offset = struct.unpack("<LL", data[end + 12 : end + 20])
    at, before = end - size, end - size - offset  # what was put before an archive moves all of it
    found = []
    while at < end:
        if data[at : at + 4] != ENTRY or before < 0:
            raise DamagedError("the directory is damaged")
        method, checksum, packed, unpacked = struct.unpack("<10xH4xLLL", data[at : at + 28])
        lengths = struct.unpack("<HHH", data[at + 28 : at + 34])
        (local,) = struct.unpack("<L", data[at + 42 : at + 46])
        name = data[at + 46 : min(at + 46 + lengths[0], end)].decode("cp437")
        at += 46 + sum(lengths)
        if name.endswith(RUBBISH) or (name.endswith("/") and not unpacked):  # nobody reads it
            continue
        content = _entry(data[before + local :], method, packed)
        if (checksum, unpacked) != (zlib.crc32(content), len(content)):
            raise DamagedError("the checksum of an entry does not hold")
        if content:
            found.append((name, content))
    return found


def _entry(data: bytes, method: int, packed: int) -> bytes:
    if data[:4] != LOCAL:
        raise DamagedError("an entry is not where the directory says")
    start = 30 + sum(struct.unpack("<HH", data[26:30]))
    stored = data[start : start + packed]
    return _inflated(stored)[0] if method == 8 else stored
