"""The budgets of request bodies, in pure ASGI: bytes are counted and slow ones timed before any parser sees them."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import Problem
from service.problems import render

LINGER_BYTES = 256 * 1024
LINGER_S = 1.0
"""How much of an unwanted body is read away after the answer, so that most clients see it and no reset."""
GRACE_S = 30.0
"""How long a body may be silent altogether, beside the time that its bytes take at the slowest rate allowed."""


class BodyLimit:
    """Refuses bodies over ``bytes_max``, by Content-Length before the first byte, otherwise when the count passes it,
    and those that come at less than ``rate_min`` bytes a second."""

    def __init__(self, app: ASGIApp, *, bytes_max: int, rate_min: int) -> None:
        self._app = app
        self._bytes_max, self._rate_min = bytes_max, rate_min

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its body watched."""
        headers = Headers(scope=scope) if scope["type"] == "http" else Headers()
        declared = int(headers.get("content-length", "0"))
        if not declared and "transfer-encoding" not in headers:
            await self._app(scope, receive, send)
            return
        body = _Body(receive, send, declared=declared, bytes_max=self._bytes_max, rate_min=self._rate_min)
        if (
            "content-length" in headers and "transfer-encoding" in headers
        ):  # a proxy may see another end (RFC 9112, 6.3)
            ambiguous = Problem("malformed_request", "the body's length is given in two ways")
            await render(ambiguous, instance=scope["path"])(scope, body.receive, body.send)
            return
        await self._app(scope, body.receive, body.send)


class _Body:
    """One request body on its way in, and the answer to it on its way out."""

    def __init__(self, receive: Receive, send: Send, *, declared: int, bytes_max: int, rate_min: int) -> None:
        self._receive, self._send = receive, send
        self._declared, self._bytes_max, self._rate_min = declared, bytes_max, rate_min
        self._count, self._waited_s = 0, 0.0
        self._arrived = False

    async def receive(self) -> Message:
        if self._declared > self._bytes_max:
            raise self._too_large()
        if self._arrived:  # what is waited for now is that the client goes away
            return await self._receive()
        began = time.monotonic()
        try:
            async with asyncio.timeout(GRACE_S + self._count / self._rate_min - self._waited_s):
                message = await self._take()
        except TimeoutError:
            raise Problem("upload_too_slow", f"{self._rate_min} bytes a second are expected") from None
        self._waited_s += time.monotonic() - began
        if self._count > self._bytes_max:
            raise self._too_large()
        return message

    async def send(self, message: Message) -> None:
        if self._arrived:
            await self._send(message)
        elif message["type"] == "http.response.start":
            MutableHeaders(scope=message)["Connection"] = "close"  # nobody will read the rest
            await self._send(message)
        elif message.get("more_body", False):
            await self._send(message)
        else:
            await self._send({**message, "more_body": True})
            await self._read_away()
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _read_away(self) -> None:
        enough = self._count + LINGER_BYTES
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                while not self._arrived and self._count < enough:
                    await self._take()

    async def _take(self) -> Message:
        message = await self._receive()
        self._count += len(message.get("body", b""))
        self._arrived = self._arrived or not message.get("more_body", False)  # also where the client has gone
        return message

    def _too_large(self) -> Problem:
        return Problem("body_too_large", f"at most {self._bytes_max} bytes are accepted")
