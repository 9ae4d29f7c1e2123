"""Server-sent events (WHATWG HTML, 9.2), from bytes as they come."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ncagate.client.errors import NotUnderstoodError

EVENT_BYTES_MAX = 4 * 1024 * 1024


@dataclass(frozen=True)
class Event:
    """A name and a text."""

    name: str
    data: str


class EventReader:
    """Keeps what is no whole event yet."""

    def __init__(self) -> None:
        self._rest = b""
        self._name, self._data = "message", list[str]()

    def feed(self, data: bytes) -> Iterator[Event]:
        """The events that these bytes complete."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > EVENT_BYTES_MAX:
            raise NotUnderstoodError("an event is too long")
        for line in lines:
            yield from self._line(line.removesuffix(b"\r").decode("utf-8", "replace"))

    def _line(self, line: str) -> Iterator[Event]:
        if not line:
            if self._data:
                yield Event(self._name, "\n".join(self._data))
            self._name, self._data = "message", []
            return
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            self._data.append(value)
        elif field == "event":
            self._name = value
