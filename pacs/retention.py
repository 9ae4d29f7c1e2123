"""Erasing jobs whose time is over, with all that is kept of them."""

from __future__ import annotations

import logging

from jobs.audit import Action
from jobs.clients import Client, Scope
from jobs.models import LOCAL
from jobs.retention import Retention
from pacs.collect import Collection

PURGER = Client(LOCAL, frozenset({Scope.ADMIN}), "retention")
"""As whom it is written down."""

log = logging.getLogger(__name__)


def purge(collection: Collection, *, keep_days: float | None) -> int:
    """Erase what has been kept for long enough (`Retention.over`); how many jobs that were."""
    retention, collection = Retention(collection.jobs.engine), collection.seen_by(PURGER)
    erased = 0
    while over := retention.over(keep_days):
        gone = sum(collection.erase(job_id, why=Action.PURGED) for job_id in over)
        erased += gone
        if not gone:  # somebody else is at it
            break
    if erased:
        log.info("%d jobs were erased, as their time was over", erased)
    return erased
