"""Around every request: its metrics, its identifier, and the headers that every answer carries."""

from __future__ import annotations

import time
from uuid import uuid4

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.metrics import Answered, Metrics
from service.problems import PROBLEM

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Methods that get a label of their own; a client may invent any other."""


class Telemetry:
    """Pure ASGI middleware; of bodies it knows the length alone."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, watching it and its answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        seen = Answered(scope["method"] if scope["method"] in METHODS else "other", uuid4().hex)

        async def counted() -> Message:
            message = await receive()
            seen.received += len(message.get("body", b""))
            return message

        async def tagged(message: Message) -> None:
            if message["type"] == "http.response.start":
                seen.status = message["status"]
                _add_headers(MutableHeaders(scope=message), seen.identifier)
            seen.sent += len(message.get("body", b""))
            await send(message)

        try:
            with self._metrics.in_flight():
                await self._app(scope, counted, tagged)
            seen.problem = scope.get(PROBLEM)
        except Exception:
            seen.problem = "internal_error"  # what the client is told, further out
            raise
        finally:
            seen.route = getattr(scope.get("route"), "path", "none")
            seen.seconds = time.perf_counter() - began
            self._metrics.answered(seen)


def _add_headers(headers: MutableHeaders, identifier: str) -> None:
    headers["X-Request-ID"] = identifier
    headers["X-Content-Type-Options"] = "nosniff"
    headers.setdefault("Cache-Control", "no-store")  # scans and masks are patient data
