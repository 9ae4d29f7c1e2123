"""The heartbeat of a running job: it extends the lease, reports progress, learns of a cancel and shows that its worker
works."""

from __future__ import annotations

import logging
import threading

from sqlalchemy.exc import SQLAlchemyError

from jobs.models import Job
from jobs.repository import JobRepository
from nca.errors import CancelledError
from worker.presence import Presence
from worker.ticking import Ticking

BEAT_S = 0.5
"""How often a running job's row is touched: a cancel reaches the worker this fast."""

log = logging.getLogger(__name__)


class Heart(Ticking):
    """Beats in a thread of its own while the ``with`` block runs, so that reading a large scan keeps the lease too."""

    def __init__(self, repository: JobRepository, job: Job, *, lease_s: float, presence: Presence) -> None:
        super().__init__(f"heart-{job.id[:8]}", seconds=BEAT_S)
        self._repository = repository
        self._job = job
        self._lease_s = lease_s
        self._presence = presence
        self._stage, self._progress = "", 0.0
        self._lost = threading.Event()

    def report(self, stage: str, progress: float) -> None:
        """Note the stage and the share done; raises CancelledError once the job is not to go on."""
        self._stage, self._progress = stage, progress
        if self._lost.is_set():
            raise CancelledError("a cancel was requested, or another attempt has taken over")

    def tick(self) -> bool:
        """One beat."""
        try:
            going_on = self._repository.heartbeat(
                self._job.id,
                self._job.attempt,
                progress=self._progress,
                stage=self._stage,
                lease_s=self._lease_s,
            )
        except SQLAlchemyError:  # the lease outlives a short outage of the database
            log.warning("job %s: the database did not take a heartbeat", self._job.id)
            return True
        if going_on:
            self._presence.show()
        else:
            self._lost.set()
        return going_on
