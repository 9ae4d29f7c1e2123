"""Both clients behind one face, so that every test of one is a test of the other."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Iterator
from typing import Any

from ncagate.client import AsyncClient, AsyncResult, Client

KINDS = ("waiting", "awaiting")


class Talker:
    """Calls a client, or a result of one, and waits for what has to be awaited."""

    def __init__(self, target: Any, runner: asyncio.Runner) -> None:
        self._target, self._runner = target, runner

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        if not callable(found):
            return found

        def call(*arguments: Any, **options: Any) -> Any:
            answer = found(*arguments, **options)
            if inspect.isasyncgen(answer):
                return self._items(answer)
            if inspect.isawaitable(answer):
                answer = self._runner.run(_awaited(answer))
            return Talker(answer, self._runner) if isinstance(answer, AsyncResult) else answer

        return call

    def _items(self, answer: AsyncIterator[Any]) -> Iterator[Any]:
        while (one := self._runner.run(_next(answer))) is not None:
            yield one


async def _awaited(answer: Any) -> Any:
    return await answer


async def _next(answer: AsyncIterator[Any]) -> Any:
    return await anext(answer, None)


def talkers(kind: str, url: str, **options: Any) -> Iterator[Any]:
    """A client of this kind, for the length of a test."""
    with asyncio.Runner() as runner:
        client = Client(url, **options) if kind == "waiting" else AsyncClient(url, **options)
        talker = Talker(client, runner)
        yield talker
        talker.close()
