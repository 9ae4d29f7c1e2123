"""The workers' and the reconciler's side of the job rows: whoever holds an attempt, and it alone, changes its job."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from jobs import leases, tally, turns
from jobs.archive import add_objects, add_webhooks
from jobs.database import writing
from jobs.errors import ATTEMPTS_EXHAUSTED
from jobs.leases import TakenBack
from jobs.models import Job, JobRequest
from jobs.state import JobState


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

    def claim_following(self, leader: Job, lease_s: float, suits: Callable[[Job], bool]) -> Job | None:
        """`claim` the job whose turn it is, if it may go with ``leader``; None where it may not, or none is queued.

        It may where it wants the same version, has not been tried before, and ``suits``. No other is taken in its
        place: a batch changes nobody's turn.
        """
        job_id = self._next_up()
        with Session(self._engine) as session:
            job = session.get(Job, job_id) if job_id is not None else None
        if job is None or job.attempt or not suits(job):
            return None
        mine, its = leader.request, job.request
        return self.claim(job.id, lease_s) if (mine.model, mine.version) == (its.model, its.version) else None

    def claim(self, job_id: str, lease_s: float) -> Job | None:
        """Take a queued job: it is running, one attempt more. None where it is not queued (any more)."""
        now = self._clock()
        change = leases.claim(Job, job_id, now=now, lease_s=lease_s)
        with Session(self._writer, expire_on_commit=False) as session, session.begin():
            job = session.scalars(change).one_or_none()
            if job is not None:
                tally.claimed(job.request.priority, now - job.queued_at).write(session.connection())
                turns.served(session.connection(), job.client, now)
            return job

    def under_way(self, most: int) -> int:
        """How many jobs are queued or running, counted up to ``most``."""
        some = select(Job.id).where(Job.state.in_((JobState.QUEUED, JobState.RUNNING))).limit(most).subquery()
        with self._engine.connect() as connection:
            return connection.scalar(select(func.count()).select_from(some)) or 0

    def _next_up(self) -> str | None:
        with self._engine.connect() as connection:
            return turns.next_up(connection)

    def heartbeat(self, job_id: str, attempt: int, *, progress: float, stage: str, lease_s: float) -> bool:
        """Extend the lease and report progress (0 to 1); False where the attempt must stop.

        It must stop when a cancel was requested, or when the job is no longer this attempt's.
        """
        values = {"lease_until": self._clock() + lease_s, "progress": progress, "stage": stage}
        with self._writer.begin() as connection:
            return connection.execute(leases.beat(Job, job_id, attempt).values(**values)).rowcount == 1

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
        now = self._clock()
        with self._writer.begin() as connection:
            state = connection.scalar(leases.hand_back(Job, job_id, attempt, now=now))
            if state is JobState.CANCELLED:
                tally.ended(state).write(connection)
                add_webhooks(connection, [job_id], now=now)
            elif state is not None:
                tally.retried(cause).write(connection)
            return state is not None

    def take_back_expired(self, attempts_max: int, *, lease_s: float = math.inf) -> TakenBack:
        """`jobs.leases.take_back_expired` of the jobs; those that end thereby are counted."""
        now = self._clock()
        with self._writer.begin() as connection:
            taken_back = leases.take_back_expired(connection, Job, attempts_max, now=now, lease_s=lease_s)
            seen = tally.ended(JobState.CANCELLED, times=len(taken_back.cancelled))
            seen.count("jobs_total", JobState.FAILED, ATTEMPTS_EXHAUSTED, times=len(taken_back.exhausted))
            seen.count("retries_total", tally.Cause.WORKER_LOST, times=len(taken_back.requeued)).write(connection)
            add_webhooks(connection, [*taken_back.cancelled, *taken_back.exhausted], now=now)
        return taken_back

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
            held = leases.held(Job, job_id, attempt)
            change = held.values(finished_at=now, lease_until=None, **values).returning(Job.request)
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
