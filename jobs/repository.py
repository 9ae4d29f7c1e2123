"""The rows of the jobs. Every change of state is one conditional UPDATE: of two racing writers one wins."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Select,
    Update,
    and_,
    case,
    delete,
    func,
    insert,
    or_,
    select,
    text,
    tuple_,
    update,
)
from sqlalchemy.orm import Session

from jobs import tally, turns
from jobs.archive import add_objects, add_webhooks
from jobs.audit import Action, note
from jobs.clients import NOBODY, Client
from jobs.database import writing
from jobs.errors import ATTEMPTS_EXHAUSTED, InvalidCursorError
from jobs.idempotency import Named
from jobs.models import IdempotencyKey, Job, JobRequest
from jobs.state import TERMINAL, JobState

PAGE_MAX = 500
"""Most jobs one page of the list holds."""


@dataclass(frozen=True)
class TakenBack:
    """Identifiers of running jobs whose worker fell silent, by what became of them."""

    requeued: tuple[str, ...] = ()
    exhausted: tuple[str, ...] = ()
    cancelled: tuple[str, ...] = ()


@dataclass(frozen=True)
class QueueStatus:
    """How many jobs are in each state, and for how many seconds the oldest queued one has waited."""

    counts: dict[JobState, int]
    oldest_queued_s: float


class JobRepository:
    """All reading and writing of job rows, on SQLite or PostgreSQL.

    Safe to use from several threads and processes. ``clock`` gives seconds since the epoch. Rows returned are
    snapshots: they do not follow the database. Where it is `seen_by` a client, other clients' jobs do not exist
    for reading and for the client's side.
    """

    def __init__(self, engine: Engine, *, clock: Callable[[], float] = time.time, client: Client = NOBODY) -> None:
        self._engine = engine
        self._writer = writing(engine)
        self._clock = clock
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
        """Jobs per state, and the age of the queue."""
        with Session(self._engine) as session:
            rows = session.execute(select(Job.state, func.count(), func.min(Job.queued_at)).group_by(Job.state)).all()
        counts = dict.fromkeys(JobState, 0) | {state: count for state, count, _ in rows}
        oldest = next((since for state, _, since in rows if state is JobState.QUEUED), None)
        return QueueStatus(counts, 0.0 if oldest is None else max(self._clock() - oldest, 0.0))

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
            "created_at": now,
            "queued_at": now,
            "request": request,
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

    def erase(self, job_id: str, *, why: Action = Action.ERASED) -> bool:
        """Delete a finished job's row; False where there is none or it is not finished."""
        with self._writer.begin() as connection:
            gone = connection.execute(delete(Job).where(Job.id == job_id, Job.state.in_(TERMINAL), *self._mine))
            if gone.rowcount == 1:
                self._note(connection, why, job_id)
            return gone.rowcount == 1

    def _note(self, connection: Connection, action: Action, job_id: str) -> None:
        note(connection, self._client, action, job_id, self._clock())

    # --- the worker's side

    def claim_next(self, lease_s: float) -> Job | None:
        """`claim` the queued job whose turn it is; None where none is queued."""
        while (job_id := self._next_up()) is not None:
            if (job := self.claim(job_id, lease_s)) is not None:  # else another worker was faster
                return job
        return None

    def claim(self, job_id: str, lease_s: float) -> Job | None:
        """Take a queued job: it is running, one attempt more. None where it is not queued (any more)."""
        now = self._clock()
        change = (
            update(Job)
            .where(Job.id == job_id, Job.state == JobState.QUEUED)
            .values(
                state=JobState.RUNNING, attempt=Job.attempt + 1, started_at=now, lease_until=now + lease_s,
                progress=0.0, stage="",
            )
            .returning(Job)
        )  # fmt: skip
        with Session(self._writer, expire_on_commit=False) as session, session.begin():
            job = session.scalars(change).one_or_none()
            if job is not None:
                tally.waited(now - job.queued_at).write(session.connection())
                turns.served(session.connection(), job.client, now)
            return job

    def _next_up(self) -> str | None:
        with self._engine.connect() as connection:
            return turns.next_up(connection)

    def heartbeat(self, job_id: str, attempt: int, *, progress: float, stage: str, lease_s: float) -> bool:
        """Extend the lease and report progress (0 to 1); False where the attempt must stop.

        It must stop when a cancel was requested, or when the job is no longer this attempt's.
        """
        change = _held(job_id, attempt).where(Job.cancel_requested.is_(False))
        with self._writer.begin() as connection:
            beat = connection.execute(
                change.values(lease_until=self._clock() + lease_s, progress=progress, stage=stage)
            )
            return beat.rowcount == 1

    def succeed(
        self, job_id: str, attempt: int, result: Mapping[str, Any], *, objects: Sequence[Mapping[str, str]] = ()
    ) -> bool:
        """End the job with its result record (finite numbers); False where it is no longer this attempt's.

        ``objects`` are rows of `DicomObject` without their job. Where there are any, the request's destinations get
        their deliveries, so that a result is on its way as soon as it exists.
        """
        end = {"state": JobState.SUCCEEDED, "result": dict(result), "progress": 1.0, "stage": ""}
        return self._end(job_id, attempt, end, tally.succeeded(result), objects=objects)

    def fail(self, job_id: str, attempt: int, code: str, detail: str) -> bool:
        """End the job with a stable code and a sentence; False where it is no longer this attempt's."""
        end = {"state": JobState.FAILED, "error_code": code, "error_detail": detail}
        return self._end(job_id, attempt, end, tally.ended(JobState.FAILED))

    def cancelled(self, job_id: str, attempt: int) -> bool:
        """End the job because its client asked to; False where it is no longer this attempt's."""
        return self._end(job_id, attempt, {"state": JobState.CANCELLED}, tally.ended(JobState.CANCELLED))

    def hand_back(self, job_id: str, attempt: int) -> bool:
        """Queue the job again after an attempt that broke; end it where a cancel was requested meanwhile.

        False where it is no longer this attempt's.
        """
        now, unwanted = self._clock(), Job.cancel_requested.is_(True)
        values = _requeued(now) | {
            "state": case((unwanted, JobState.CANCELLED), else_=JobState.QUEUED),
            "finished_at": case((unwanted, now), else_=None),
        }
        with self._writer.begin() as connection:
            state = connection.scalar(_held(job_id, attempt).values(**values).returning(Job.state))
            if state is JobState.CANCELLED:
                tally.ended(state).write(connection)
                add_webhooks(connection, [job_id], now=now)
            return state is not None

    # --- the reconciler's side

    def take_back_expired(self, attempts_max: int, *, lease_s: float = math.inf) -> TakenBack:
        """Put running jobs whose lease ran out back into the queue; end them after ``attempts_max``.

        A lease is for ``lease_s`` seconds. One that has more than twice as many left was given by a clock that has been
        set back since; it counts as run out, for its worker may be dead. One that lives gives itself a new one.
        """
        now = self._clock()
        over = or_(Job.lease_until < now, Job.lease_until > now + 2 * lease_s)
        expired = and_(Job.state == JobState.RUNNING, over)
        end = {"finished_at": now, "lease_until": None}
        with self._writer.begin() as connection:
            cancelled = _move(
                connection,
                update(Job).where(expired, Job.cancel_requested),
                end | {"state": JobState.CANCELLED},
            )
            exhausted = _move(
                connection,
                update(Job).where(expired, Job.attempt >= attempts_max),
                end
                | {"state": JobState.FAILED, "error_code": ATTEMPTS_EXHAUSTED}
                | {"error_detail": f"the worker stopped answering in each of {attempts_max} attempts"},
            )
            requeued = _move(connection, update(Job).where(expired), _requeued(now))
            seen = tally.ended(JobState.CANCELLED, times=len(cancelled))
            seen.count("jobs_total", JobState.FAILED, times=len(exhausted)).write(connection)
            add_webhooks(connection, [*cancelled, *exhausted], now=now)
        return TakenBack(requeued=requeued, exhausted=exhausted, cancelled=cancelled)

    def _end(
        self,
        job_id: str,
        attempt: int,
        values: dict[str, Any],
        seen: tally.Observations,
        *,
        objects: Sequence[Mapping[str, str]] = (),
    ) -> bool:
        now = self._clock()
        with self._writer.begin() as connection:
            change = _held(job_id, attempt).values(finished_at=now, lease_until=None, **values).returning(Job.request)
            request: JobRequest | None = connection.scalar(change)
            if request is None:
                return False
            if objects:
                add_objects(connection, job_id, objects, destinations=request.destinations, now=now)
            add_webhooks(connection, [job_id], now=now)
            seen.write(connection)
            if values["state"] is JobState.SUCCEEDED:
                tally.stamp_success(connection, now)
            return True


def cursor(job: Job) -> str:
    """The job's place in the list, to go on from."""
    return f"{job.created_at!r}-{job.id}"


def _parse_cursor(value: str) -> tuple[float, str]:
    created, _, job_id = value.partition("-")
    try:
        return float(created), job_id
    except ValueError:
        raise InvalidCursorError(f"{value[:80]!r} is not a place in the list of jobs") from None


def _requeued(now: float) -> dict[str, Any]:
    """Column values that put a job back into the queue."""
    fresh = {"queued_at": now, "lease_until": None, "progress": 0.0, "stage": ""}
    return {"state": JobState.QUEUED} | fresh


def _held(job_id: str, attempt: int) -> Update:
    """An UPDATE of the job that does nothing unless this attempt still holds it."""
    return update(Job).where(Job.id == job_id, Job.state == JobState.RUNNING, Job.attempt == attempt)


def _move(connection: Connection, change: Update, values: dict[str, Any]) -> tuple[str, ...]:
    """Identifiers of the rows that the UPDATE changed."""
    return tuple(connection.scalars(change.values(**values).returning(Job.id)))
