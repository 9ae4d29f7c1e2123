"""DICOM files as a multipart/related body (DICOM part 18, 8.6; RFC 2387)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from uuid import uuid4

CHUNK_BYTES = 1 << 20


def related(files: Sequence[Path]) -> tuple[str, Iterator[bytes]]:
    """The Content-Type, and the body, read from the disk as it is sent."""
    boundary = uuid4().hex
    return f'multipart/related; type="application/dicom"; boundary={boundary}', _body(files, boundary)


def _body(files: Sequence[Path], boundary: str) -> Iterator[bytes]:
    for path in files:
        yield f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk
        yield b"\r\n"
    yield f"--{boundary}--\r\n".encode()
