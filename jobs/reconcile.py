"""Making the broker agree with the rows: there is a wake-up for every job that waits."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

from jobs.attempts import TakenBack
from jobs.errors import ATTEMPTS_EXHAUSTED, BrokerUnavailableError
from jobs.queue import Broker
from jobs.repository import JobRepository
from jobs.state import JobState

WAKES_MAX = 1000
"""Most wake-ups that one round sends; the next one is seconds away."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reconciled:
    """What one round did: wake-ups sent, whether the broker answered, jobs taken back from silent workers."""

    sent: int
    answered: bool
    taken_back: TakenBack


def reconcile(repository: JobRepository, broker: Broker, *, attempts_max: int, lease_s: float = math.inf) -> Reconciled:
    """Take back jobs of silent workers, then send the wake-ups that the broker lacks.

    A wake-up too many is harmless: the worker that gets it finds nothing queued. So several gateways may do this.
    """
    taken_back = repository.take_back_expired(attempts_max, lease_s=lease_s)
    _tell(taken_back)
    sent = 0
    try:
        queued = repository.queued()
        for _ in range(min(queued - broker.waiting(), WAKES_MAX) if queued else 0):
            broker.wake()
            sent += 1
    except BrokerUnavailableError:
        return Reconciled(sent, False, taken_back)
    return Reconciled(sent, True, taken_back)


def _tell(taken_back: TakenBack) -> None:
    for job_id in taken_back.requeued:
        log.warning("job %s: its worker fell silent; queued again", job_id, extra={"state": JobState.QUEUED.value})
    for job_id in taken_back.exhausted:
        said = {"state": JobState.FAILED.value, "code": ATTEMPTS_EXHAUSTED}
        log.warning("job %s: its worker fell silent, in the last attempt", job_id, extra=said)
    for job_id in taken_back.cancelled:
        log.info("job %s: cancelled, its worker had fallen silent", job_id, extra={"state": JobState.CANCELLED.value})
