"""The workers' and the reconciler's side of the job rows: whoever holds an attempt, and it alone, changes its job."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, Update, and_, case, or_, update
from sqlalchemy.orm import Session

from jobs import tally, turns
from jobs.archive import add_objects, add_webhooks
from jobs.database import writing
from jobs.errors import ATTEMPTS_EXHAUSTED
from jobs.models import Job, JobRequest
from jobs.state import JobState


@dataclass(frozen=True)
class TakenBack:
    """Identifiers of running jobs whose worker fell silent, by what became of them."""

    requeued: tuple[str, ...] = ()
    exhausted: tuple[str, ...] = ()
    cancelled: tuple[str, ...] = ()


class Attempts:
    """Every change is one conditional UPDATE. ``clock`` gives seconds since the epoch."""

    def __init__(self, engine: Engine, *, clock: Callable[[], float] = time.time) -> None:
        self._engine, self._writer, self._clock = engine, writing(engine), clock

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
                tally.claimed(job.request.priority, now - job.queued_at).write(session.connection())
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
        return self._end(job_id, attempt, end, tally.ended(JobState.FAILED, code))

    def cancelled(self, job_id: str, attempt: int) -> bool:
        """End the job because its client asked to; False where it is no longer this attempt's."""
        return self._end(job_id, attempt, {"state": JobState.CANCELLED}, tally.ended(JobState.CANCELLED))

    def hand_back(self, job_id: str, attempt: int, *, cause: tally.Cause) -> bool:
        """Queue the job again after an attempt that did not end it; end it where a cancel was requested meanwhile.

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
            elif state is not None:
                tally.retried(cause).write(connection)
            return state is not None

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
            seen.count("jobs_total", JobState.FAILED, ATTEMPTS_EXHAUSTED, times=len(exhausted))
            seen.count("retries_total", tally.Cause.WORKER_LOST, times=len(requeued)).write(connection)
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
