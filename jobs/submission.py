"""Turning files and a request into a job: files first, then the row, so that whatever fails, nothing is half there."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path

from sqlalchemy.exc import IntegrityError

from jobs.blobs import Blobs
from jobs.idempotency import Named
from jobs.models import Job, JobRequest
from jobs.repository import JobRepository
from ncagate.bucket import StorageUnavailableError

log = logging.getLogger(__name__)


def submit(
    repository: JobRepository,
    blobs: Blobs,
    job_id: str,
    *,
    staged: Path,
    request: JobRequest,
    named: Named | None = None,
) -> Job:
    """Make the staged folder the input of a new job, and the job queued; a worker still has to be woken.

    Raises:
        IdempotencyError: there is a job under this name.
        StorageUnavailableError: there is no place for the files now.
    """
    try:
        blobs.commit_input(staged, job_id)
        job = repository.create(job_id, request, named=named)
    except BaseException as error:
        if isinstance(error, IntegrityError) and repository.get(job_id) is not None:
            raise  # another process has made the same job of the same files
        with suppress(StorageUnavailableError):  # then the sweep finds what has no row
            blobs.erase(job_id)
        raise
    log.info("job %s: queued", job_id, extra={"state": job.state.value})
    return job
