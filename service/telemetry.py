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
from service.metrics import Metrics

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Methods that get a label of their own; a client may invent any other."""
UNTRACED = frozenset({"/livez", "/readyz", "/metrics"})
"""Asked for every few seconds, by machines."""


class Telemetry:
    """Pure ASGI middleware; it never looks at bodies."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, watching its answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        request_id = chosen_request_id(headers.get("x-request-id"))
        with bound(request_id=request_id), self._traced(scope, headers) as span:
            await self._watch(scope, receive, send, request_id=request_id, span=span)

    async def _watch(self, scope: Scope, receive: Receive, send: Send, *, request_id: str, span: Span) -> None:
        status, began = 500, time.perf_counter()

        async def tagged(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                _add_headers(MutableHeaders(scope=message), request_id)
            await send(message)

        try:
            await self._app(scope, receive, tagged)
        finally:
            method, route = _method(scope), getattr(scope.get("route"), "path", "none")
            self._metrics.answered(method=method, route=route, status=status, seconds=time.perf_counter() - began)
            told = {"http.route": route, "http.response.status_code": status}
            span.tell(f"{method} {route}", failed=status >= HTTPStatus.INTERNAL_SERVER_ERROR, **told)

    def _traced(self, scope: Scope, headers: Headers) -> AbstractContextManager[Span]:
        """The part of a trace that the request is; of one that its client began, where it says so."""
        if scope["path"] in UNTRACED:
            return nullcontext(Span(None))
        offered = headers.get("traceparent")
        told = {"http.request.method": _method(scope)}
        return tracing.span(_method(scope), parent=offered, kind="server", **told)


def _method(scope: Scope) -> str:
    return scope["method"] if scope["method"] in METHODS else "other"


def _add_headers(headers: MutableHeaders, request_id: str) -> None:
    headers["X-Request-ID"] = request_id
    headers["X-Content-Type-Options"] = "nosniff"
    headers.setdefault("Cache-Control", "no-store")  # scans and masks are patient data
