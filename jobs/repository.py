"""The rows of the jobs. Every change of state is one conditional UPDATE: of two racing writers one wins."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Select,
    case,
    delete,
    func,
    insert,
    select,
    text,
    tuple_,
    update,
)
from sqlalchemy.orm import Session

from jobs import tally, turns
from jobs.archive import add_webhooks
from jobs.attempts import Attempts
from jobs.audit import Action, note
from jobs.clients import NOBODY, Client
from jobs.errors import InvalidCursorError
from jobs.idempotency import Named
from jobs.models import IdempotencyKey, Job, JobRequest
from jobs.state import TERMINAL, JobState, Priority
from ncagate import logs, tracing

PAGE_MAX = 500
"""Most jobs one page of the list holds."""


@dataclass(frozen=True)
class Waiting:
    """How many jobs wait for a worker, and for how many seconds the oldest has."""

    depth: int = 0
    oldest_s: float = 0.0


@dataclass(frozen=True)
class QueueStatus:
    """How many jobs are in each state, and what waits of each priority."""

    counts: dict[JobState, int]
    waiting: dict[Priority, Waiting]


class JobRepository(Attempts):
    """All reading and writing of job rows, on SQLite or PostgreSQL: the clients' side here, the workers' in `Attempts`.

    Safe to use from several threads and processes. ``clock`` gives seconds since the epoch. Rows returned are
    snapshots: they do not follow the database. Where it is `seen_by` a client, other clients' jobs do not exist
    for reading and for the client's side.
    """

    def __init__(self, engine: Engine, *, clock: Callable[[], float] = time.time, client: Client = NOBODY) -> None:
        super().__init__(engine, clock=clock)
        self._client = client

    def seen_by(self, client: Client) -> JobRepository:
        """This repository as a client sees it, whose new jobs are its own."""
        return JobRepository(self._engine, clock=self._clock, client=client)

    @property
    def _mine(self) -> tuple[ColumnElement[bool], ...]:
        return () if self._client.sees_all else (Job.client == self._client.name,)

    @property
    def engine(self) -> Engine:
        """The database, for the tables beside the jobs."""
        return self._engine

    # --- reading

    def get(self, job_id: str) -> Job | None:
        """The job, or None."""
        with Session(self._engine) as session:
            return session.scalars(self._one(job_id)).one_or_none()

    def list(self, *, state: JobState | None = None, limit: int = 50, before: str | None = None) -> Sequence[Job]:
        """Jobs, newest first, at most ``limit``; ``before`` is the `cursor` of the last job of the last page.

        Raises:
            InvalidCursorError: ``before`` is not a cursor.
        """
        query = select(Job).where(*self._mine).order_by(Job.created_at.desc(), Job.id.desc())
        if state is not None:
            query = query.where(Job.state == state)
        if before is not None:
            query = query.where(tuple_(Job.created_at, Job.id) < tuple_(*_parse_cursor(before)))
        with Session(self._engine) as session:
            return session.scalars(query.limit(min(limit, PAGE_MAX))).all()

    def position(self, job: Job) -> int | None:
        """How many queued jobs are more urgent or older than this one; None where it is not queued, as it was read."""
        if job.state is not JobState.QUEUED:
            return None
        with Session(self._engine) as session:
            return session.scalar(turns.ahead(job))

    def _one(self, job_id: str) -> Select[Job]:
        return select(Job).where(Job.id == job_id, *self._mine)

    def queued(self, client: str | None = None) -> int:
        """How many jobs wait for a worker; of one client, or of all."""
        query = select(func.count()).where(turns.QUEUED)
        if client is not None:
            query = query.where(Job.client == client)
        with Session(self._engine) as session:
            return session.scalar(query) or 0

    def status(self) -> QueueStatus:
        """Jobs per state (read from an index alone), and the queues."""
        queues = select(Job.priority, func.count(), func.min(Job.queued_at)).where(turns.QUEUED).group_by(Job.priority)
        with Session(self._engine) as session:
            states = session.execute(select(Job.state, func.count()).group_by(Job.state))
            counts = {state: count for state, count in states}  # noqa: C416  # mypy knows no dict of rows
            queued = {rank: (depth, since) for rank, depth, since in session.execute(queues)}
        now, empty = self._clock(), Waiting()
        waiting = dict.fromkeys(Priority, empty)
        for priority in Priority:
            if priority.rank in queued:
                depth, since = queued[priority.rank]
                waiting[priority] = Waiting(depth, max(now - since, 0.0))
        return QueueStatus(dict.fromkeys(JobState, 0) | counts, waiting)

    def totals(self) -> tally.Totals:
        """What became of all jobs ever, erased ones included."""
        with self._engine.connect() as connection:
            return tally.read_totals(connection)

    def ping(self) -> None:
        """Ask the database for an answer; raises SQLAlchemy's error where it gives none."""
        with self._engine.connect() as connection:
            connection.execute(text("SELECT 1 FROM jobs LIMIT 1"))

    def close(self) -> None:
        """Close the database's connections; the next use opens new ones."""
        self._engine.dispose()

    # --- the client's side

    def create(self, job_id: str, request: JobRequest, *, named: Named | None = None) -> Job:
        """Insert a queued job, under the name that its client gave the request. Its input files must be in place.

        Raises:
            IdempotencyError: there is a job under this name.
        """
        now = self._clock()
        values = {
            "id": job_id,
            "state": JobState.QUEUED,
            "client": self._client.name,
            "priority": request.priority.rank,
            "model": request.model,
            "version": request.version,
            "created_at": now,
            "queued_at": now,
            "request": request,
            "request_id": logs.fields().get("request_id"),
            "trace": tracing.current(),
        }
        with Session(self._writer, expire_on_commit=False) as session, session.begin():
            job = session.scalars(insert(Job).returning(Job), [values]).one()
            if named is not None:
                named.write(session.connection(), self._client.name, job_id)
            self._note(session.connection(), Action.SUBMITTED, job_id)
            return job

    def named(self, key: str) -> tuple[Job, str] | None:
        """The job of the request that the client called so, and what that request's digest was."""
        query = select(Job, IdempotencyKey.digest).join(IdempotencyKey, IdempotencyKey.job_id == Job.id)
        with Session(self._engine) as session:
            found = session.execute(
                query.where(IdempotencyKey.client == self._client.name, IdempotencyKey.key == key)
            ).one_or_none()
        return None if found is None else (found[0], found[1])

    def request_cancel(self, job_id: str) -> JobState | None:
        """Cancel a queued job at once, ask a running one to stop; the state after, None for no such job."""
        now, queued = self._clock(), Job.state == JobState.QUEUED
        change = (
            update(Job)
            .where(Job.id == job_id, Job.state.in_([JobState.QUEUED, JobState.RUNNING]), *self._mine)
            .values(
                cancel_requested=True,
                state=case((queued, JobState.CANCELLED), else_=Job.state),
                finished_at=case((queued, now), else_=Job.finished_at),
            )
            .returning(Job.state)
        )
        with self._writer.begin() as connection:
            state: JobState | None = connection.scalar(change)
            if state is not None:
                self._note(connection, Action.CANCELLED, job_id)
            if state is JobState.CANCELLED:
                tally.ended(state).write(connection)
                add_webhooks(connection, [job_id], now=now)
            return state or connection.scalar(select(Job.state).where(Job.id == job_id, *self._mine))

    def erase(
        self, job_id: str, *, why: Action = Action.ERASED, first: Callable[[str], object] = lambda job_id: None
    ) -> bool:
        """Delete a finished job's row; False where there is none or it is not finished.

        ``first`` is called with the job where there is one; the row stays where it raises.
        """
        with self._writer.begin() as connection:
            gone = connection.execute(delete(Job).where(Job.id == job_id, Job.state.in_(TERMINAL), *self._mine))
            if gone.rowcount == 1:
                first(job_id)
                self._note(connection, why, job_id)
            return gone.rowcount == 1

    def _note(self, connection: Connection, action: Action, job_id: str) -> None:
        note(connection, self._client, action, job_id, self._clock())


def cursor(job: Job) -> str:
    """The job's place in the list, to go on from."""
    return f"{job.created_at!r}-{job.id}"


def _parse_cursor(value: str) -> tuple[float, str]:
    created, _, job_id = value.partition("-")
    try:
        return float(created), job_id
    except ValueError:
        raise InvalidCursorError(f"{value[:80]!r} is not a place in the list of jobs") from None
