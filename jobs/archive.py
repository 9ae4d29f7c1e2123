"""Rows of what jobs made for others: DICOM objects, and the deliveries to archives and webhooks."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, func, insert, select, update
from sqlalchemy.orm import Session

from jobs.clients import NOBODY, Client
from jobs.database import writing
from jobs.models import Delivery, DicomObject, Job
from jobs.state import DeliveryState

WEBHOOK = "webhook"
"""Name, among the destinations, of a job's own webhook."""
PAGE_MAX = 500
"""Most groups one page of a search holds."""

Wanted = Mapping[str, str | Sequence[str]]
"""Columns of `DicomObject` and the value, or the values, that they may have."""


def add_objects(
    connection: Connection,
    job_id: str,
    objects: Sequence[Mapping[str, str]],
    *,
    destinations: Sequence[str],
    now: float,
) -> None:
    """Insert a job's objects, as `DicomObject` without their job, and a delivery to each destination, due at once."""
    connection.execute(insert(DicomObject), [{**one, "job_id": job_id} for one in objects])
    _add_deliveries(connection, [(job_id, one) for one in dict.fromkeys(destinations)], now)


def add_webhooks(connection: Connection, ended: Sequence[str], *, now: float) -> None:
    """Insert a delivery, due at once, for each of these jobs that has a webhook: they have just ended."""
    if ended:
        rows = connection.execute(select(Job.id, Job.request).where(Job.id.in_(ended))).all()
        wanted = [(job_id, WEBHOOK) for job_id, request in rows if request.webhook is not None]
        _add_deliveries(connection, wanted, now)


def _add_deliveries(connection: Connection, wanted: Sequence[tuple[str, str]], now: float) -> None:
    """Jobs and destinations."""
    pending = {"state": DeliveryState.PENDING, "due_at": now, "attempts": 0}
    rows = [{"job_id": job_id, "destination": destination, **pending} for job_id, destination in wanted]
    if rows:
        connection.execute(insert(Delivery), rows)


class ObjectRepository:
    """Reading of the DICOM objects that jobs made; where it is `seen_by` a client, of its jobs only."""

    def __init__(self, engine: Engine, *, client: Client = NOBODY) -> None:
        self._engine, self._client = engine, client

    def seen_by(self, client: Client) -> ObjectRepository:
        """This repository as a client sees it."""
        return ObjectRepository(self._engine, client=client)

    def find(self, values: Wanted) -> Sequence[tuple[DicomObject, Job]]:
        """Objects whose columns have these values, with their jobs, those of the newest job first."""
        query = select(DicomObject, Job).where(*self._conditions(values))
        query = query.order_by(Job.created_at.desc(), Job.id, DicomObject.file.desc())
        with Session(self._engine) as session:
            return [(made, job) for made, job in session.execute(query)]

    def groups(
        self, columns: Sequence[str], values: Wanted, *, limit: int = PAGE_MAX, offset: int = 0
    ) -> Sequence[tuple[str, ...]]:
        """The distinct values of ``columns`` among the objects that fit, those with the newest job first."""
        keys = [getattr(DicomObject, column) for column in columns]
        query = select(*keys).where(*self._conditions(values)).group_by(*keys)
        query = query.order_by(func.max(Job.created_at).desc(), *keys)
        with Session(self._engine) as session:
            return [tuple(row) for row in session.execute(query.limit(min(limit, PAGE_MAX)).offset(offset))]

    def _conditions(self, values: Wanted) -> list[ColumnElement[bool]]:
        """That an object has these values; the job is its own, and the client's."""
        wanted = ((column, [value] if isinstance(value, str) else value) for column, value in values.items())
        mine = [] if self._client.sees_all else [Job.client == self._client.name]
        there = (getattr(DicomObject, column).in_(value) for column, value in wanted)
        return [Job.id == DicomObject.job_id, *mine, *there]


class DeliveryRepository:
    """Deliveries, once they exist; thread-safe. ``clock`` gives seconds since the epoch."""

    def __init__(self, engine: Engine, *, clock: Callable[[], float] = time.time) -> None:
        self._engine, self._writer, self._clock = engine, writing(engine), clock

    def of_job(self, job_id: str) -> Sequence[Delivery]:
        """The job's deliveries."""
        query = select(Delivery).where(Delivery.job_id == job_id).order_by(Delivery.destination)
        with Session(self._engine) as session:
            return session.scalars(query).all()

    def job(self, claimed: Delivery) -> Job | None:
        """The job of a delivery; None where it has been erased meanwhile."""
        with Session(self._engine) as session:
            return session.get(Job, claimed.job_id)

    def claim(self, destination: str, lease_s: float) -> Delivery | None:
        """Take a delivery that is due: one attempt more. None where none is.

        The least tried first, then the one due for longest: what is tried again and again keeps nothing new waiting.
        """
        now = self._clock()
        due = select(Delivery.job_id).where(Delivery.destination == destination, Delivery.due_at <= now)
        first = due.order_by(Delivery.attempts, Delivery.due_at).limit(1).scalar_subquery()
        change = update(Delivery).where(
            Delivery.job_id == first, Delivery.destination == destination, Delivery.due_at <= now
        )
        values = {"due_at": now + lease_s, "attempts": Delivery.attempts + 1}
        with Session(self._writer, expire_on_commit=False) as session, session.begin():
            return session.scalars(change.values(**values).returning(Delivery)).one_or_none()

    def settle(self, claimed: Delivery, state: DeliveryState, *, error: str | None = None) -> bool:
        """End a claimed delivery; False where the claim has run out."""
        return self._change(claimed, {"state": state, "due_at": None, "finished_at": self._clock(), "error": error})

    def postpone(self, claimed: Delivery, delay_s: float, *, error: str, refused: bool = False) -> bool:
        """Try a claimed delivery again later, having counted a refusal; False where the claim has run out."""
        refusals = claimed.refusals + int(refused)
        return self._change(claimed, {"due_at": self._clock() + delay_s, "error": error, "refusals": refusals})

    def counts(self) -> dict[tuple[str, DeliveryState], int]:
        """How many deliveries to each archive are in each state."""
        query = select(Delivery.destination, Delivery.state, func.count()).group_by(
            Delivery.destination, Delivery.state
        )
        with Session(self._engine) as session:
            return {(destination, state): count for destination, state, count in session.execute(query)}

    def oldest_s(self) -> dict[str, float]:
        """For how many seconds the result that has waited longest for each archive has existed, where any waits."""
        since = func.min(Job.finished_at)
        query = select(Delivery.destination, since).join(Job, Job.id == Delivery.job_id)
        pending = query.where(Delivery.state == DeliveryState.PENDING).group_by(Delivery.destination)
        with Session(self._engine) as session:
            now = self._clock()
            return {name: max(now - (since or now), 0.0) for name, since in session.execute(pending)}

    def _change(self, claimed: Delivery, values: dict[str, Any]) -> bool:
        held = (
            Delivery.job_id == claimed.job_id,
            Delivery.destination == claimed.destination,
            Delivery.due_at == claimed.due_at,
        )
        with self._writer.begin() as connection:
            return connection.execute(update(Delivery).where(*held).values(**values)).rowcount == 1
