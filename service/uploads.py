"""A multipart/form-data body, streamed straight to disk (RFC 7578)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from python_multipart.exceptions import FormParserError, MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request

from service.errors import Problem
from service.schemas import SegmentForm

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

SCAN = "scan"
FIELDS = tuple(SegmentForm.model_fields)
FIELD_BYTES_MAX = 256
"""Longest value of a plain field."""
HEADERS_MAX = 8
HEADER_BYTES_MAX = 4096
BATCH_BYTES = 1024 * 1024
"""Bytes collected before a thread writes them."""


@dataclass
class Upload:
    """What came: plain fields by name, and the sizes in bytes of the files 0000, 0001, ... in the folder."""

    fields: dict[str, str] = field(default_factory=dict)
    sizes: list[int] = field(default_factory=list)


async def receive_upload(
    request: Request, folder: Path, *, files_max: int, count: Callable[[int], None] = lambda size: None
) -> Upload:
    """Stream the request's body into ``folder``; ``count`` is told the bytes as they come.

    The client's file names are never used, nor kept: they may name a patient.

    Raises:
        Problem: not multipart, malformed, cut off, a field unknown or too long, a file empty or one too many.
    """
    with closing(_Parser(_boundary(request), folder, files_max)) as parser:
        batch = bytearray()
        try:
            async for chunk in request.stream():
                count(len(chunk))
                batch += chunk
                if len(batch) >= BATCH_BYTES:
                    await run_in_threadpool(parser.feed, bytes(batch))
                    batch.clear()
        except ClientDisconnect:
            raise Problem("upload_incomplete", "the client went away") from None
        await run_in_threadpool(parser.feed, bytes(batch))
        return parser.finish()


def _boundary(request: Request) -> bytes:
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data" or "content-encoding" in request.headers:
        raise Problem("unsupported_media_type")
    if not options.get(b"boundary"):
        raise Problem("malformed_upload", "the Content-Type names no boundary")
    return options[b"boundary"]


class _Parser:
    """Feeds python-multipart's push parser and writes what it finds."""

    def __init__(self, boundary: bytes, folder: Path, files_max: int) -> None:
        self._folder = folder
        self._files_max = files_max
        self._upload = Upload()
        self._complete = False
        self._header = (bytearray(), bytearray())
        self._disposition = b""
        self._name = ""
        self._value = bytearray()
        self._file: BinaryIO | None = None
        try:
            self._parser = MultipartParser(
                boundary, self._callbacks(), max_header_count=HEADERS_MAX, max_header_size=HEADER_BYTES_MAX
            )
        except FormParserError as error:
            raise Problem("malformed_upload", str(error)) from error

    def feed(self, data: bytes) -> None:
        """Parse and write some bytes."""
        try:
            self._parser.write(data)
        except MultipartParseError as error:
            raise Problem("malformed_upload", "the body does not follow its boundary") from error

    def finish(self) -> Upload:
        """What came, now that the body has ended."""
        if not self._complete:
            raise Problem("upload_incomplete")
        if not self._upload.sizes:
            raise Problem("missing_scan")
        return self._upload

    def close(self) -> None:
        """Close the file being written, if any."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._part_begin,
            "on_header_field": lambda data, start, end: self._header[0].extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._header[1].extend(data[start:end]),
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._part_data,
            "on_part_end": self._part_end,
            "on_end": self._end,
        }

    def _part_begin(self) -> None:
        self._disposition = b""

    def _header_end(self) -> None:
        name, value = (bytes(part) for part in self._header)
        self._header = (bytearray(), bytearray())
        if name.lower() == b"content-disposition":
            self._disposition = value

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        if b"name" not in options:
            raise Problem("malformed_upload", "a part has no name")
        self._name = options[b"name"].decode("utf-8", "replace")
        if self._name == SCAN:
            self._open_file()
        elif self._name not in FIELDS:
            raise Problem("unexpected_field", f"the form has a field {self._name[:64]!r}")
        elif self._name in self._upload.fields:
            raise Problem("invalid_parameter", f"{self._name}: given twice")
        self._value.clear()

    def _open_file(self) -> None:
        number = len(self._upload.sizes)
        if number >= self._files_max:
            raise Problem("too_many_files", f"at most {self._files_max} files are accepted")
        self._file = (self._folder / f"{number:04d}").open("xb")
        self._upload.sizes.append(0)

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self._upload.sizes[-1] += self._file.write(memoryview(data)[start:end])
            return
        self._value += data[start:end]
        if len(self._value) > FIELD_BYTES_MAX:
            raise Problem("invalid_parameter", f"{self._name}: longer than {FIELD_BYTES_MAX} bytes")

    def _part_end(self) -> None:
        if self._file is None:
            self._upload.fields[self._name] = self._value.decode("utf-8", "replace")
            return
        self.close()
        if not self._upload.sizes[-1]:
            raise Problem("empty_file", f"file {len(self._upload.sizes)} of the field {SCAN!r} has no bytes")

    def _end(self) -> None:
        self._complete = True
