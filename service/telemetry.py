"""Around every request: its metrics, its identifier, and the headers that every answer carries."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from http import HTTPStatus

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ncagate import tracing
from ncagate.logs import bound, chosen_request_id
from ncagate.tracing import Span
from service.metrics import Answered, Metrics
from service.problems import PROBLEM

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Methods that get a label of their own; a client may invent any other."""
UNTRACED = frozenset({"/livez", "/readyz", "/metrics"})
"""Asked for every few seconds, by machines."""


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
        headers = Headers(scope=scope)
        seen = Answered(
            scope["method"] if scope["method"] in METHODS else "other", chosen_request_id(headers.get("x-request-id"))
        )
        with bound(request_id=seen.identifier), _traced(scope, headers, seen) as span:
            await self._watch(scope, receive, send, seen=seen, span=span)

    async def _watch(self, scope: Scope, receive: Receive, send: Send, *, seen: Answered, span: Span) -> None:
        began = time.perf_counter()

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
            told = {"http.route": seen.route, "http.response.status_code": seen.status}
            failed = seen.status >= HTTPStatus.INTERNAL_SERVER_ERROR
            span.tell(f"{seen.method} {seen.route}", failed=failed, **told)


def _traced(scope: Scope, headers: Headers, seen: Answered) -> AbstractContextManager[Span]:
    """The part of a trace that the request is; of one that its client began, where it says so."""
    if scope["path"] in UNTRACED:
        return nullcontext(Span(None))
    told = {"http.request.method": seen.method}
    return tracing.span(seen.method, parent=headers.get("traceparent"), kind="server", **told)


def _add_headers(headers: MutableHeaders, identifier: str) -> None:
    headers["X-Request-ID"] = identifier
    headers["X-Content-Type-Options"] = "nosniff"
    headers.setdefault("Cache-Control", "no-store")  # scans and masks are patient data
