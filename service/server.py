"""The HTTP server: uvicorn, with deadlines for clients that send or take their bytes one by one."""

from __future__ import annotations

import asyncio
import resource
from contextlib import suppress
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_S = 10.0
"""How long a connection may take to send a request's head, from its start or from the end of the last answer."""
STALLED_S = 60.0
"""How long a client may take none of an answer's bytes that wait for it."""
RESERVED_FILES = 256
"""Open files that are not connections: the database, the broker, scans and results."""


def server_config(app: ASGIApp, *, host: str, port: int, stopping_s: int) -> uvicorn.Config:
    """How the gateway is served; when it stops, answers under way get ``stopping_s`` seconds."""
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        http=Connection,
        log_config=None,
        access_log=False,
        proxy_headers=False,  # an address that a header names would be that of a trusted proxy, for whoever likes
        ws="none",
        timeout_graceful_shutdown=stopping_s,
    )


def raise_file_limit() -> None:
    """Let this process have as many open files as the system allows it: every connection is one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # macOS says that there is no limit, and then has one
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def connections_max() -> float:
    """How many connections this process has files for."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return float("inf") if soft == resource.RLIM_INFINITY else max(soft - RESERVED_FILES, soft / 2)


class Connection(H11Protocol):
    """A connection that ends where its client keeps it waiting: uvicorn itself has no deadline once a byte has come.

    Bodies have theirs in `service.limits`.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._head: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as of the base class
        """Begin; where there would be no files left to serve the others, end at once."""
        super().connection_made(transport)
        if len(self.connections) > connections_max():
            transport.abort()
            return
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """Bytes came: of a head, or of a body."""
        super().data_received(data)
        self._await_head()

    def on_response_complete(self) -> None:
        """Go on with the next request."""
        super().on_response_complete()
        self._await_head()

    def pause_writing(self) -> None:
        """The client takes bytes slower than they are made."""
        super().pause_writing()
        self._stall = self.loop.call_later(STALLED_S, self.transport.abort)

    def resume_writing(self) -> None:
        """It has taken them."""
        super().resume_writing()
        self._stall = _stopped(self._stall)

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        super().connection_lost(exc)
        self._head, self._stall = _stopped(self._head), _stopped(self._stall)

    def _await_head(self) -> None:
        if self.conn.their_state is not h11.IDLE or self.transport.is_closing():
            self._head = _stopped(self._head)
        elif self._head is None:
            self._head = self.loop.call_later(HEAD_S, self.timeout_keep_alive_handler)


def _stopped(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    if timer is not None:
        timer.cancel()
    return None
