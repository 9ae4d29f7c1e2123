"""Following a job by its row, without holding a thread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from starlette.concurrency import run_in_threadpool

from jobs.models import Job
from jobs.repository import JobRepository

POLL_MIN_S = 0.05
POLL_MAX_S = 0.5
POLL_SHARE = 0.05
"""A row is looked at again after this share of the time it has been followed: quick answers stay quick."""


async def wait_finished(repository: JobRepository, job: Job, seconds: float) -> Job:
    """The job when it is finished, or as it stands after ``seconds``; as last seen where it is erased."""
    began = time.monotonic()
    while not job.finished and (left := began + seconds - time.monotonic()) > 0:
        await asyncio.sleep(min(_pause(began), left))
        now = await run_in_threadpool(repository.get, job.id)
        if now is None:
            break
        job = now
    return job


async def snapshots(repository: JobRepository, job_id: str) -> AsyncIterator[tuple[Job, int | None] | None]:
    """The job and its place in the queue, over and over until it is finished; None once it is erased."""
    began = time.monotonic()
    while True:
        job = await run_in_threadpool(repository.get, job_id)
        if job is None:
            yield None
            return
        yield job, None if job.finished else await run_in_threadpool(repository.position, job)
        if job.finished:
            return
        await asyncio.sleep(_pause(began))


def _pause(began: float) -> float:
    return min(max(POLL_MIN_S, POLL_SHARE * (time.monotonic() - began)), POLL_MAX_S)
