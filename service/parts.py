"""A multipart body, streamed: python-multipart's push parser, fed in batches by a thread."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from python_multipart.exceptions import FormParserError, MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request

from service.errors import Problem

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

HEADERS_MAX = 8
HEADER_BYTES_MAX = 4096
BATCH_BYTES = 1024 * 1024
"""Bytes collected before a thread writes them."""


class Parts(ABC):
    """What is done with the parts of one body; files of it become 0000, 0001, ... in a folder.

    Attributes:
        sizes: bytes of each file.
    """

    def __init__(self, folder: Path, *, files_max: int) -> None:
        self.sizes: list[int] = []
        self._folder, self._files_max = folder, files_max
        self._file: BinaryIO | None = None

    @abstractmethod
    def begin(self, headers: Mapping[bytes, bytes]) -> None:
        """A part begins; names of headers are in lower case."""

    def data(self, data: memoryview) -> None:
        """Some bytes of the part."""
        if self._file is not None:
            self.sizes[-1] += self._file.write(data)

    def end(self) -> None:
        """The part has ended."""
        self.close()

    def open_file(self) -> None:
        """What follows of the part is written to a file.

        Raises:
            Problem: ``too_many_files``.
        """
        number = len(self.sizes)
        if number >= self._files_max:
            raise Problem("too_many_files", f"at most {self._files_max} files are accepted")
        self._file = (self._folder / f"{number:04d}").open("xb")
        self.sizes.append(0)

    def close(self) -> None:
        """Close the file being written, if any."""
        if self._file is not None:
            self._file.close()
            self._file = None


async def receive_parts(request: Request, parts: Parts, *, media_type: bytes) -> None:
    """Stream the request's body into ``parts``.

    Raises:
        Problem: of another media type, malformed, cut off, or whatever ``parts`` refuses.
    """
    with closing(parts):
        parser, batch = _Parser(_boundary(request, media_type), parts), bytearray()
        try:
            async for chunk in request.stream():
                batch += chunk
                if len(batch) >= BATCH_BYTES:
                    await run_in_threadpool(parser.feed, bytes(batch))
                    batch.clear()
        except ClientDisconnect:
            raise Problem("upload_incomplete", "the client went away") from None
        await run_in_threadpool(parser.feed, bytes(batch))
        if not parser.complete:
            raise Problem("upload_incomplete")


def _boundary(request: Request, media_type: bytes) -> bytes:
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != media_type or "content-encoding" in request.headers:
        raise Problem("unsupported_media_type", f"send {media_type.decode()}")
    if not options.get(b"boundary"):
        raise Problem("malformed_upload", "the Content-Type names no boundary")
    return options[b"boundary"]


class _Parser:
    """Turns python-multipart's callbacks into calls of `Parts`."""

    def __init__(self, boundary: bytes, parts: Parts) -> None:
        self._parts = parts
        self.complete = False
        self._header = (bytearray(), bytearray())
        self._headers: dict[bytes, bytes] = {}
        try:
            self._parser = MultipartParser(
                boundary, self._callbacks(), max_header_count=HEADERS_MAX, max_header_size=HEADER_BYTES_MAX
            )
        except FormParserError as error:
            raise Problem("malformed_upload", str(error)) from error

    def feed(self, data: bytes) -> None:
        """Parse some bytes."""
        try:
            self._parser.write(data)
        except MultipartParseError as error:
            raise Problem("malformed_upload", "the body does not follow its boundary") from error

    def _callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._headers.clear,
            "on_header_field": lambda data, start, end: self._header[0].extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._header[1].extend(data[start:end]),
            "on_header_end": self._header_end,
            "on_headers_finished": lambda: self._parts.begin(self._headers),
            "on_part_data": lambda data, start, end: self._parts.data(memoryview(data)[start:end]),
            "on_part_end": self._parts.end,
            "on_end": self._end,
        }

    def _header_end(self) -> None:
        name, value = (bytes(part) for part in self._header)
        self._header = (bytearray(), bytearray())
        self._headers[name.lower()] = value

    def _end(self) -> None:
        self.complete = True
