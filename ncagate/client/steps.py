"""Work that is described without being done: generators that yield steps, for a driver that waits or one that awaits.

httpx writes its authentication so (``auth_flow``). A step that fails raises where it was yielded.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

import httpx

from ncagate.client.scans import Scan
from ncagate.client.types import Progress

T = TypeVar("T")

CONNECT_S = 10.0
SILENCE_S = 60.0
"""How long no byte may come or go. A stream of events is never silent for longer than `KEEP_ALIVE_S`."""
KEEP_ALIVE_S = 15.0


@dataclass(frozen=True)
class Call:
    """A request, built anew for every attempt. With ``stream`` the body of its answer is left to be read.

    ``silence_s``: how long the answer may be silent.
    """

    method: str
    path: str
    params: Mapping[str, str | int] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    form: Mapping[str, str] = field(default_factory=dict)
    scan: Scan | None = None
    progress: Progress | None = None
    stream: bool = False
    silence_s: float = SILENCE_S

    def build(self, http: httpx.Client | httpx.AsyncClient) -> httpx.Request:
        """The request."""
        return http.build_request(
            self.method,
            self.path,
            params=self.params or None,
            headers=self.headers,
            data=self.form or None,
            files=None if self.scan is None else self.scan.parts(self.progress),
            timeout=httpx.Timeout(SILENCE_S, connect=CONNECT_S, read=self.silence_s),
        )


@dataclass(frozen=True)
class Send:
    """Send it; gives the response. An error's body, and one that is not streamed, has been read."""

    call: Call


@dataclass(frozen=True)
class Read:
    """Gives the next bytes of a streamed response as they came, None at its end."""

    response: httpx.Response


@dataclass(frozen=True)
class Sleep:
    """Wait for so many seconds."""

    seconds: float


@dataclass(frozen=True)
class Do:
    """Gives what ``work`` returns, which touches the disk."""

    work: Callable[[], Any]


@dataclass(frozen=True)
class Emit:
    """Hand ``value`` to whoever iterates."""

    value: Any


Step: TypeAlias = Send | Read | Sleep | Do | Emit
Flow: TypeAlias = Generator[Step, Any, T]
