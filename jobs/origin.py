"""Which job something is about, for the lines of a log and the parts of a trace."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from jobs.models import Job
from ncagate import logs


def identifiers(job: Job) -> dict[str, Any]:
    """Of the job, its model and the attempt at it."""
    return {
        "job_id": job.id,
        "model": job.request.model,
        "version": job.request.version,
        "attempt": job.attempt,
    }


def bound_to(job: Job) -> AbstractContextManager[None]:
    """Inside, every line of the log names them, and the request that made the job."""
    return logs.bound(request_id=job.request_id, **identifiers(job))
