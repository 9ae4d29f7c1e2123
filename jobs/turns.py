"""Whose turn it is: urgent jobs before routine ones, then the client that has waited longest for a worker.

So a client with a thousand scans does not keep another one's single scan waiting: they take turns, job by job.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, Select, and_, func, or_, select
from sqlalchemy.dialects import postgresql, sqlite

from jobs.models import Client, Job
from jobs.state import JobState

QUEUED = Job.state == JobState.QUEUED


def next_up(connection: Connection) -> str | None:
    """Identifier of the queued job whose turn it is, None where none is queued."""
    waiting = (
        select(Job.priority, Job.client)
        .join(Client, Client.name == Job.client, isouter=True)
        .where(QUEUED)
        .group_by(Job.priority, Job.client, Client.served_at)
        .order_by(Job.priority.desc(), func.coalesce(Client.served_at, 0.0), func.min(Job.created_at))
    )
    turn = connection.execute(waiting.limit(1)).one_or_none()
    if turn is None:
        return None
    mine = select(Job.id).where(QUEUED, Job.priority == turn.priority, Job.client == turn.client)
    return connection.scalar(mine.order_by(Job.created_at, Job.id).limit(1))


def served(connection: Connection, client: str, now: float) -> None:
    """A worker has taken up a job of this client, whose next turn comes after the others'."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    insert = dialect.insert(Client).values(name=client, served_at=now)
    connection.execute(insert.on_conflict_do_update(index_elements=["name"], set_={"served_at": now}))


def ahead(job: Job) -> Select[int]:
    """Counts the queued jobs before this one by priority and age; turns between clients may change that."""
    older: ColumnElement[bool] = or_(
        Job.created_at < job.created_at, and_(Job.created_at == job.created_at, Job.id < job.id)
    )
    before = or_(Job.priority > job.priority, and_(Job.priority == job.priority, older))
    return select(func.count()).where(QUEUED, before)
