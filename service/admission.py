"""What is taken on, in pure ASGI before a byte of body is read: so much a second and at once of each client, and no
more than queue and disk have room for."""

from __future__ import annotations

import shutil
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jobs.repository import JobRepository
from ncagate.settings import Settings
from service.access.middleware import CLIENT, is_upload
from service.errors import Problem
from service.problems import from_database, render

BURST_S = 2.0
"""A client that was silent for this long may ask for so many seconds' worth of requests at once."""
CLIENTS_MAX = 4096
BUSY_S = 1
FULL_S = 10
"""What `Retry-After` says to a client that does too much at once, and where the service has too much to do."""


class Buckets:
    """A token bucket per client. ``clock`` gives seconds that only grow."""

    def __init__(self, rate: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._clock = rate, clock
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str) -> bool:
        """Whether the client may go on."""
        now, full = self._clock(), max(self._rate * BURST_S, 1.0)
        at, level = self._levels.pop(client, (now, full))
        level = min(level + (now - at) * self._rate, full)
        self._levels[client] = (now, level - 1.0 if level >= 1.0 else level)
        if len(self._levels) > CLIENTS_MAX:  # the one that has been silent for longest, whose bucket is full again
            self._levels.popitem(last=False)
        return level >= 1.0


@dataclass(frozen=True)
class Room:
    """How much more work the service takes on."""

    settings: Settings
    repository: JobRepository

    def check(self, client: str, *, incoming: int) -> None:
        """Refuse an upload for which there is no room; ``incoming`` are the bytes of all that are under way.

        Raises:
            Problem: ``queue_full``, ``too_many_jobs`` or ``storage_full``.
        """
        settings, again = self.settings, {"Retry-After": str(FULL_S)}
        if shutil.disk_usage(settings.data).free - incoming < settings.disk_free_min:
            raise Problem("storage_full", "there is too little room for another upload", headers=again)
        if (queued := self.repository.queued()) >= settings.queue_max:
            raise Problem("queue_full", f"{queued} jobs are queued", headers=again)
        if (mine := self.repository.queued(client)) >= settings.client_queue_max:
            raise Problem("too_many_jobs", f"{mine} jobs of this client are queued", headers=again)


class Admission:
    """Lets a request through, or tells its client when to come again."""

    def __init__(self, app: ASGIApp, *, settings: Settings, repository: JobRepository) -> None:
        self._app = app
        self._settings = settings
        self._buckets = Buckets(settings.client_rate_max)
        self._room = Room(settings, repository)
        self._requests: Counter[str] = Counter()
        self._uploads: Counter[str] = Counter()
        self._incoming = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        client = scope.get(CLIENT)
        if client is None:  # what needs no client costs nothing
            await self._app(scope, receive, send)
            return
        try:
            with self._at_once(client.name):
                if is_upload(scope["method"], scope["path"]):
                    await self._upload(client.name, scope, receive, send)
                else:
                    await self._app(scope, receive, send)
        except Problem as problem:
            await render(problem, instance=scope["path"])(scope, receive, send)

    @contextmanager
    def _at_once(self, client: str) -> Iterator[None]:
        """Let so many requests a second in, and so many that are not answered: streams of events last."""
        again = {"Retry-After": str(BUSY_S)}
        if not self._buckets.take(client):
            raise Problem("rate_limited", headers=again)
        if self._requests[client] >= self._settings.client_requests_max:
            raise Problem("rate_limited", f"at most {self._settings.client_requests_max} at once", headers=again)
        with _counting(self._requests, client):
            yield

    async def _upload(self, client: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass an upload on if there is room for it, and count it until its last byte has come."""
        if self._uploads[client] >= self._settings.client_uploads_max:
            raise Problem(
                "too_many_uploads",
                f"at most {self._settings.client_uploads_max} at once",
                headers={"Retry-After": str(BUSY_S)},
            )
        length = int(Headers(scope=scope).get("content-length", self._settings.body_bytes_max))
        length = min(length, self._settings.body_bytes_max)  # more is refused when it is to be read
        counted = ExitStack()

        async def watched() -> Message:
            message = await receive()
            if not message.get("more_body", False):
                counted.close()
            return message

        with counted:
            counted.enter_context(self._counted(client, length))
            try:
                await run_in_threadpool(self._room.check, client, incoming=self._incoming)
            except SQLAlchemyError as error:
                raise from_database(error) from error
            await self._app(scope, watched, send)

    @contextmanager
    def _counted(self, client: str, length: int) -> Iterator[None]:
        self._incoming += length
        try:
            with _counting(self._uploads, client):
                yield
        finally:
            self._incoming -= length


@contextmanager
def _counting(counter: Counter[str], client: str) -> Iterator[None]:
    counter[client] += 1
    try:
        yield
    finally:
        counter[client] -= 1
        if not counter[client]:
            del counter[client]
