"""Which workers there are, and when each last showed that it works.

A process that runs may be deaf: cut off from the broker, or stuck. So a worker counts as working only by what it does.
The gateways send each one canaries, messages to a queue of its own that only a write to its row answers: they go the
way that jobs go, through the broker, the worker's main process and one of its job processes to the database. A worker
that is busy answers none; the heart of its job beats for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Engine, and_, delete, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import InstrumentedAttribute

from jobs.database import writing
from jobs.errors import BrokerUnavailableError
from jobs.models import Worker
from jobs.queue import Broker
from ncagate.settings import Settings

CANARY_ROUNDS = 3
"""An idle worker is sent a canary every so many rounds of the reconciler, a busy one shows as often that it works."""
AGAIN = 4
"""A canary that is not answered for so many of these intervals may be lost: another one is sent."""
SILENT_ROUNDS = 18
"""A worker that showed nothing for so many rounds is silent."""
FORGOTTEN_S = 3600.0
"""After which a silent worker, which signed off no more, is forgotten."""


def canary_s(settings: Settings) -> float:
    """Seconds between two canaries."""
    return CANARY_ROUNDS * settings.reconcile_s


def silent_s(settings: Settings) -> float:
    """Seconds after which a worker is silent."""
    return SILENT_ROUNDS * settings.reconcile_s


class WorkerRepository:
    """The rows of the workers. ``clock`` gives seconds since the epoch."""

    def __init__(self, engine: Engine, *, clock: Callable[[], float] = time.time) -> None:
        self._engine, self._writer, self._clock = engine, writing(engine), clock

    def started(self, name: str) -> None:
        """A process of a worker begins: the worker is to be asked."""
        self._put(name, {"started_at": self._clock(), "asked_at": None})

    def seen(self, name: str) -> None:
        """A worker answered a canary, or works on a job."""
        self._put(name, {"seen_at": self._clock()})

    def signed_off(self, name: str) -> None:
        """A worker ends as it should."""
        with self._writer.begin() as connection:
            connection.execute(delete(Worker).where(Worker.name == name))

    def ask(self, every_s: float) -> Sequence[str]:
        """Workers that are to be sent a canary now; of several gateways that ask, one is told each."""
        now = self._clock()
        answered = and_(Worker.seen_at >= Worker.asked_at, _off(Worker.asked_at, now, every_s))
        quiet = or_(Worker.seen_at.is_(None), _off(Worker.seen_at, now, every_s))
        due = or_(Worker.asked_at.is_(None), answered, _off(Worker.asked_at, now, AGAIN * every_s))
        with self._writer.begin() as connection:
            change = update(Worker).where(quiet, due).values(asked_at=now).returning(Worker.name)
            return connection.scalars(change).all()

    def forget(self, age_s: float) -> Sequence[str]:
        """Remove the workers that showed nothing for so long; their names."""
        old = func.coalesce(Worker.seen_at, Worker.started_at) < self._clock() - age_s
        with self._writer.begin() as connection:
            return connection.scalars(delete(Worker).where(old).returning(Worker.name)).all()

    def silences(self) -> Mapping[str, tuple[bool, float]]:
        """Of every worker, whether it ever showed that it works, and how many seconds ago; else since it began."""
        since = func.coalesce(Worker.seen_at, Worker.started_at)
        with self._engine.connect() as connection:
            rows = connection.execute(select(Worker.name, Worker.seen_at, since)).all()
        return {name: (seen is not None, max(self._clock() - at, 0.0)) for name, seen, at in rows}

    def _put(self, name: str, values: Mapping[str, Any]) -> None:
        dialect = postgresql if self._engine.dialect.name == "postgresql" else sqlite
        insert = dialect.insert(Worker).values({"name": name, "started_at": self._clock(), **values})
        with self._writer.begin() as connection:
            connection.execute(insert.on_conflict_do_update(index_elements=["name"], set_=dict(values)))


def send_canaries(workers: WorkerRepository, broker: Broker, *, every_s: float) -> None:
    """Send those that are due, and forget who has been silent for long. A broker that is away is tried again later."""
    try:
        for name in workers.forget(FORGOTTEN_S):
            broker.drop_canaries(name)
        for name in workers.ask(every_s):
            broker.send_canary(name)
    except BrokerUnavailableError:
        return


def _off(column: InstrumentedAttribute[float | None], now: float, seconds: float) -> ColumnElement[bool]:
    """Whether a time is longer ago than that, or so far ahead that clocks were set back since."""
    return or_(column < now - seconds, column > now + seconds)
