"""A network that fails on demand: a TCP proxy that forwards, refuses, swallows, delays, or forgets its connections."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import suppress
from enum import StrEnum
from typing import Any

CHUNK = 65536
STOP_S = 10.0


class Network(StrEnum):
    """What becomes of bytes."""

    FINE = "fine"
    CUT = "cut"  # connections are closed, new ones too
    HUNG = "hung"  # connections are taken, and no byte moves until it is over
    SLOW = "slow"  # every byte takes its time


DELAY_S = 0.2
"""How late bytes are in a slow network."""


class FaultProxy:
    """Listens on a port of its own at ``host`` and passes on to ``target``, on this machine; runs in a thread."""

    def __init__(self, target: int, *, host: str = "127.0.0.1") -> None:
        self._target, self._host = target, host
        self._loop = asyncio.new_event_loop()
        self._state = Network.FINE
        self._moves = asyncio.Event()
        self._links: set[_Link] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault proxy", daemon=True)
        self._thread.start()
        self._server: asyncio.Server = self._call(self._listen())
        self.port = int(self._server.sockets[0].getsockname()[1])

    def become(self, state: Network, *, seconds: float | None = None) -> None:
        """Change the network's state; after so many ``seconds`` all is fine again."""
        self._call(self._become(state))
        if seconds is not None:
            self._loop.call_soon_threadsafe(self._loop.call_later, seconds, self._enter, Network.FINE)

    def forget(self) -> int:
        """Let no byte of today's connections move ever again, without a word to either end; how many there were."""
        return int(self._call(self._forget()))

    def close(self) -> None:
        """End it."""
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(STOP_S)
        self._loop.close()

    def _call(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(STOP_S)

    async def _listen(self) -> asyncio.Server:
        self._moves.set()
        return await asyncio.start_server(self._accept, self._host, 0)

    async def _become(self, state: Network) -> None:
        self._enter(state)

    def _enter(self, state: Network) -> None:
        self._state = state
        if state is Network.CUT:
            for link in list(self._links):
                link.drop()
        if state is Network.HUNG:
            self._moves.clear()
        else:
            self._moves.set()

    async def _forget(self) -> int:
        for link in self._links:
            link.forgotten = True
        return len(self._links)

    async def _close(self) -> None:
        self._server.close()
        for link in list(self._links):
            link.drop()
        tasks = [one for one in asyncio.all_tasks() if one is not asyncio.current_task()]
        for one in tasks:
            one.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._moves.wait()
        if self._state is Network.CUT:
            writer.transport.abort()
            return
        try:
            out_reader, out_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:  # the server is down
            writer.transport.abort()
            return
        link = _Link(writer, out_writer)
        self._links.add(link)
        try:
            await asyncio.gather(self._pump(link, reader, out_writer), self._pump(link, out_reader, writer))
            await link.finished()
        finally:
            self._links.discard(link)
            link.drop()

    async def _pump(self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(CHUNK):
                await self._moves.wait()
                if self._state is Network.SLOW:
                    await asyncio.sleep(DELAY_S)
                if not link.forgotten:
                    writer.write(data)
                    await writer.drain()
        if not link.forgotten:
            link.finish()


class _Link:
    """Both ends of one connection."""

    def __init__(self, *writers: asyncio.StreamWriter) -> None:
        self.forgotten = False
        self._writers = writers

    def finish(self) -> None:
        """One end has said all it had to say: the other gets it to the last byte."""
        for one in self._writers:
            one.close()

    async def finished(self) -> None:
        """Once that has happened, or it takes too long."""
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(0.0 if self.forgotten else STOP_S):
                for one in self._writers:
                    await one.wait_closed()

    def drop(self) -> None:
        """Now, and whatever is on its way is lost."""
        for one in self._writers:
            one.transport.abort()
