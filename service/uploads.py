"""The form of POST /segment: multipart/form-data, its files streamed straight to disk (RFC 7578)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from python_multipart.multipart import parse_options_header
from starlette.requests import Request

from jobs.wish import Wish
from service.errors import Problem
from service.parts import Parts, receive_parts

SCAN = "scan"
FIELDS = tuple(Wish.model_fields)
FIELD_BYTES_MAX = 256
"""Longest value of a plain field."""


@dataclass(frozen=True)
class Upload:
    """What came: plain fields by name, and the sizes in bytes of the files 0000, 0001, ... in the folder."""

    fields: dict[str, str]
    sizes: list[int]


async def receive_upload(request: Request, folder: Path, *, files_max: int) -> Upload:
    """Stream the request's body into ``folder``.

    The client's file names are never used, nor kept: they may name a patient.

    Raises:
        Problem: not multipart, malformed, cut off, a field unknown or too long, a file empty or one too many.
    """
    form = _Form(folder, files_max=files_max)
    await receive_parts(request, form, media_type=b"multipart/form-data")
    if not form.sizes:
        raise Problem("missing_scan")
    return Upload(form.fields, form.sizes)


class _Form(Parts):
    """Files of the field `SCAN`, and plain fields."""

    def __init__(self, folder: Path, *, files_max: int) -> None:
        super().__init__(folder, files_max=files_max)
        self.fields: dict[str, str] = {}
        self._name = ""
        self._value = bytearray()

    def begin(self, headers: Mapping[bytes, bytes]) -> None:
        """Open a file, or begin a field."""
        _, options = parse_options_header(headers.get(b"content-disposition"))
        if b"name" not in options:
            raise Problem("malformed_upload", "a part has no name")
        self._name = options[b"name"].decode("utf-8", "replace")
        if self._name == SCAN:
            self.open_file()
        elif self._name not in FIELDS:
            raise Problem("unexpected_field", f"the form has a field {self._name[:64]!r}")
        elif self._name in self.fields:
            raise Problem("invalid_parameter", f"{self._name}: given twice")
        self._value.clear()

    def data(self, data: memoryview) -> None:
        """Some bytes of a file or of a field."""
        if self._name == SCAN:
            super().data(data)
            return
        self._value += data
        if len(self._value) > FIELD_BYTES_MAX:
            raise Problem("invalid_parameter", f"{self._name}: longer than {FIELD_BYTES_MAX} bytes")

    def end(self) -> None:
        """The file or field is whole."""
        super().end()
        if self._name != SCAN:
            self.fields[self._name] = self._value.decode("utf-8", "replace")
        elif not self.sizes[-1]:
            raise Problem("empty_file", f"file {len(self.sizes)} of the field {SCAN!r} has no bytes")
