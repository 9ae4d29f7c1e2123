"""DICOM files as a multipart/related body (DICOM part 18, 8.6; RFC 2387)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from uuid import uuid4


def related(files: Sequence[Iterable[bytes]]) -> tuple[str, Iterator[bytes]]:
    """The Content-Type, and the body, of files that come in pieces and are read as it is sent."""
    boundary = uuid4().hex
    return f'multipart/related; type="application/dicom"; boundary={boundary}', _body(files, boundary)


def _body(files: Sequence[Iterable[bytes]], boundary: str) -> Iterator[bytes]:
    for chunks in files:
        yield f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        yield from chunks
        yield b"\r\n"
    yield f"--{boundary}--\r\n".encode()
