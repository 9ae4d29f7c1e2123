"""Work under a lease, whatever the work: whoever holds an attempt, and it alone, changes the row.

Statements over any table with the columns of `Leased`. Each is one conditional UPDATE: of two racing writers one wins.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Connection, Update, and_, case, or_, update
from sqlalchemy.sql.dml import ReturningUpdate

from jobs.errors import ATTEMPTS_EXHAUSTED
from jobs.models import Leased
from jobs.state import JobState

Row = TypeVar("Row", bound=Leased)


@dataclass(frozen=True)
class TakenBack:
    """Identifiers of running rows whose worker fell silent, by what became of them."""

    requeued: tuple[str, ...] = ()
    exhausted: tuple[str, ...] = ()
    cancelled: tuple[str, ...] = ()


def claim(kind: type[Row], row_id: str, *, now: float, lease_s: float) -> ReturningUpdate[Row]:
    """Takes a queued row: it is running, one attempt more. Changes nothing where it is not queued (any more)."""
    change = update(kind).where(kind.id == row_id, kind.state == JobState.QUEUED)
    return change.values(
        state=JobState.RUNNING, attempt=kind.attempt + 1, started_at=now, lease_until=now + lease_s,
        progress=0.0, stage="",
    ).returning(kind)  # fmt: skip


def held(kind: type[Leased], row_id: str, attempt: int) -> Update:
    """An UPDATE of the row that does nothing unless this attempt still holds it."""
    return update(kind).where(kind.id == row_id, kind.state == JobState.RUNNING, kind.attempt == attempt)


def beat(kind: type[Leased], row_id: str, attempt: int) -> Update:
    """As `held`, and nothing where a cancel was requested: the attempt must stop then."""
    return held(kind, row_id, attempt).where(kind.cancel_requested.is_(False))


def hand_back(kind: type[Leased], row_id: str, attempt: int, *, now: float) -> ReturningUpdate[JobState]:
    """Queues the row again after an attempt that broke; ends it where a cancel was requested meanwhile."""
    unwanted = kind.cancel_requested.is_(True)
    values = _requeued(now) | {
        "state": case((unwanted, JobState.CANCELLED), else_=JobState.QUEUED),
        "finished_at": case((unwanted, now), else_=None),
    }
    return held(kind, row_id, attempt).values(**values).returning(kind.state)


def take_back_expired(
    connection: Connection, kind: type[Leased], attempts_max: int, *, now: float, lease_s: float = math.inf
) -> TakenBack:
    """Put running rows whose lease ran out back into the queue; end them after ``attempts_max``.

    A lease is for ``lease_s`` seconds. One that has more than twice as many left was given by a clock that has been
    set back since; it counts as run out, for its worker may be dead. One that lives gives itself a new one.
    """
    over = or_(kind.lease_until < now, kind.lease_until > now + 2 * lease_s)
    expired = and_(kind.state == JobState.RUNNING, over)
    end = {"finished_at": now, "lease_until": None}
    exhausted = {
        "state": JobState.FAILED,
        "error_code": ATTEMPTS_EXHAUSTED,
        "error_detail": f"the worker stopped answering in each of {attempts_max} attempts",
    }

    def move(change: Update, values: dict[str, Any]) -> tuple[str, ...]:
        return tuple(connection.scalars(change.values(**values).returning(kind.id)))

    return TakenBack(
        cancelled=move(update(kind).where(expired, kind.cancel_requested), end | {"state": JobState.CANCELLED}),
        exhausted=move(update(kind).where(expired, kind.attempt >= attempts_max), end | exhausted),
        requeued=move(update(kind).where(expired), _requeued(now)),
    )


def _requeued(now: float) -> dict[str, Any]:
    """Column values that put a row back into the queue."""
    fresh = {"queued_at": now, "lease_until": None, "progress": 0.0, "stage": ""}
    return {"state": JobState.QUEUED} | fresh
