"""Asks who it is before anything else is done with a request: pure ASGI, so no byte of a stranger's body is read."""

from __future__ import annotations

import re

from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from jobs import clients
from service.access.door import Door
from service.errors import Problem
from service.problems import from_database, render

PUBLIC = frozenset({"/livez", "/readyz"})
"""What the machines around the service ask; beside these only the console's own files are everybody's."""
CONSOLE = "/console"
"""Where the review page is: a program without data, which asks for a key itself."""
CLIENT = "ncagate.client"
"""Key of the request's client in its ASGI scope."""
_REVIEWS = re.compile(r"/jobs/[^/]+/reviews")


class Access:
    """Lets a request through with its client in the scope, or answers it."""

    def __init__(self, app: ASGIApp, *, door: Door) -> None:
        self._app, self._door = app, door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] == "http" and not is_public(scope["path"]):
            try:
                client = self._door.remembered(Headers(scope=scope))
                if client is None:
                    client = await run_in_threadpool(self._identify, scope)
                needed = needed_scope(scope["method"], scope["path"])
                if not client.may(needed):
                    raise Problem("forbidden", f"the scope `{needed}` is needed")
                scope[CLIENT] = client
            except Problem as problem:
                await render(problem, instance=scope["path"])(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _identify(self, scope: Scope) -> clients.Client:
        peer = scope["client"][0] if scope.get("client") else ""
        try:
            return self._door.identify(Headers(scope=scope), peer=peer)
        except SQLAlchemyError as error:
            raise from_database(error) from error


def is_public(path: str) -> bool:
    """Whether a path is answered whoever asks."""
    return path in PUBLIC or path == CONSOLE or path.startswith(f"{CONSOLE}/")


def is_upload(method: str, path: str) -> bool:
    """Whether a request brings scans."""
    return method == "POST" and (path == "/segment" or path.startswith("/dicomweb/"))


def needed_scope(method: str, path: str) -> clients.Scope:
    """What a client must be allowed to do for a request; for what nobody has thought of, everything."""
    if path == "/training" or path.startswith("/training/"):
        return clients.Scope.ADMIN  # its datasets are the deployment's, and no client's
    if method in ("GET", "HEAD", "OPTIONS"):
        return clients.Scope.READ
    writes = method == "POST" and _REVIEWS.fullmatch(path)
    if is_upload(method, path) or writes or (method == "DELETE" and path.startswith("/jobs/")):
        return clients.Scope.SUBMIT
    return clients.Scope.ADMIN
