"""A wake-up that cannot be settled must not be the last one that a worker gets.

Celery logs a failed acknowledgement and goes on, and kombu counts the message as held for as long as the channel
lives: a worker that holds one at a time would be deaf from then on, its connections all in order. Here it connects
anew. The broker gives the message out again later, to no harm: it names no job.
"""

from __future__ import annotations

from typing import Any

from celery.bootsteps import StartStopStep
from celery.worker.request import Request
from kombu.message import Message

CHECK_S = 1.0
"""How often is looked; who has not been settled from one look to the next will not be."""

_settling: list[Message] = []


class WakeUp(Request):  # type: ignore[misc]  # Celery has no types
    """A message that the worker's main process holds."""

    def acknowledge(self) -> None:
        """Say that it is done; the event loop sends that soon."""
        super().acknowledge()
        _settling.append(self.message)

    def reject(self, requeue: bool = False) -> None:
        """Say that it is not done."""
        super().reject(requeue=requeue)
        _settling.append(self.message)


class Settling(StartStopStep):  # type: ignore[misc]  # as above
    """Watches that what was settled is."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, parent: Any, **_: Any) -> None:
        self._late: list[Message] = []

    def start(self, parent: Any) -> None:
        """On a new connection."""
        _settling.clear()
        self._late.clear()
        parent.timer.call_repeatedly(CHECK_S, self._look)  # Celery ends it with the connection

    def _look(self) -> None:
        if not all(message.acknowledged for message in self._late):
            raise ConnectionError("a wake-up could not be settled")  # which Celery answers with a new connection
        self._late[:], _settling[:] = _settling, []
