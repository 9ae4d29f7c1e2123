"""Rows of what jobs made for archives: the DICOM objects, and the deliveries that take them there."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Engine, func, insert, select, update
from sqlalchemy.orm import Session

from jobs.database import writing
from jobs.models import Delivery, DicomObject, Job
from jobs.state import DeliveryState

PAGE_MAX = 500
"""Most objects one page of a search holds."""


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
    pending = {"job_id": job_id, "state": DeliveryState.PENDING, "due_at": now, "attempts": 0}
    if destinations:
        connection.execute(insert(Delivery), [{**pending, "destination": one} for one in dict.fromkeys(destinations)])


class ObjectRepository:
    """Reading of the DICOM objects that jobs made."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def find(
        self, values: Mapping[str, str], *, limit: int = PAGE_MAX, offset: int = 0
    ) -> Sequence[tuple[DicomObject, Job]]:
        """Objects whose columns have these values, with their jobs, those of the newest job first."""
        query = select(DicomObject, Job).join(Job, Job.id == DicomObject.job_id)
        for column, value in values.items():
            query = query.where(getattr(DicomObject, column) == value)
        query = query.order_by(Job.created_at.desc(), Job.id, DicomObject.file.desc())
        with Session(self._engine) as session:
            rows = session.execute(query.limit(min(limit, PAGE_MAX)).offset(offset)).all()
        return [(made, job) for made, job in rows]


class DeliveryRepository:
    """Deliveries, once they exist; thread-safe. ``clock`` gives seconds since the epoch."""

    def __init__(self, engine: Engine, *, clock: Callable[[], float] = time.time) -> None:
        self._engine, self._writer, self._clock = engine, writing(engine), clock

    def of_job(self, job_id: str) -> Sequence[Delivery]:
        """The job's deliveries."""
        query = select(Delivery).where(Delivery.job_id == job_id).order_by(Delivery.destination)
        with Session(self._engine) as session:
            return session.scalars(query).all()

    def claim(self, destination: str, lease_s: float) -> Delivery | None:
        """Take the delivery to this archive that has been due for longest: one attempt more. None where none is due."""
        now = self._clock()
        due = select(Delivery.job_id).where(Delivery.destination == destination, Delivery.due_at <= now)
        first = due.order_by(Delivery.due_at).limit(1).scalar_subquery()
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

    def _change(self, claimed: Delivery, values: dict[str, Any]) -> bool:
        held = (
            Delivery.job_id == claimed.job_id,
            Delivery.destination == claimed.destination,
            Delivery.due_at == claimed.due_at,
        )
        with self._writer.begin() as connection:
            return connection.execute(update(Delivery).where(*held).values(**values)).rowcount == 1
