"""The byte budget of request bodies, counted in pure ASGI before any parser sees a byte."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import Problem
from service.problems import render

LINGER_S = 2.0
"""How long unwanted bytes are read away after a refusal, so that the client sees the answer and no reset."""


class BodyLimit:
    """Refuses bodies over ``bytes_max``: by Content-Length at once, otherwise when the count passes it."""

    def __init__(self, app: ASGIApp, *, bytes_max: int) -> None:
        self._app = app
        self._bytes_max = bytes_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its body counted, or refuse it."""
        headers = Headers(scope=scope) if scope["type"] == "http" else Headers()
        if "content-length" not in headers and "transfer-encoding" not in headers:
            await self._app(scope, receive, send)
            return
        body = _Body(receive, send, self._bytes_max)
        if int(headers.get("content-length", "0")) > self._bytes_max:
            await render(body.too_large(), instance=scope["path"])(scope, body.receive, body.send)
        else:
            await self._app(scope, body.receive, body.send)


class _Body:
    """One request body on its way in, and the answer to it on its way out."""

    def __init__(self, receive: Receive, send: Send, bytes_max: int) -> None:
        self._receive = receive
        self._send = send
        self._bytes_max = bytes_max
        self._count = 0
        self._arrived = False

    def too_large(self) -> Problem:
        return Problem("body_too_large", f"at most {self._bytes_max} bytes are accepted")

    async def receive(self) -> Message:
        message = await self._take()
        if self._count > self._bytes_max:
            raise self.too_large()
        return message

    async def send(self, message: Message) -> None:
        last = message["type"] == "http.response.body" and not message.get("more_body", False)
        if not last or self._arrived:
            await self._send(message)
            return
        await self._send({**message, "more_body": True})
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                while not self._arrived:
                    await self._take()
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _take(self) -> Message:
        message = await self._receive()
        self._count += len(message.get("body", b""))
        self._arrived = self._arrived or not message.get("more_body", False)  # also where the client has gone
        return message
