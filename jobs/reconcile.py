"""Making the broker agree with the rows: there is a wake-up for every job, and every training, that waits."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import Protocol

from jobs.errors import ATTEMPTS_EXHAUSTED, BrokerUnavailableError
from jobs.leases import TakenBack
from jobs.queue import SEGMENTING, Broker, Work
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


class Rows(Protocol):
    """The rows of one kind of work."""

    def take_back_expired(self, attempts_max: int, *, lease_s: float) -> TakenBack:
        """As `jobs.leases.take_back_expired`."""
        ...

    def queued(self) -> int:
        """How many wait."""
        ...


def reconcile(
    rows: Rows, broker: Broker, *, attempts_max: int, lease_s: float = math.inf, work: Work = SEGMENTING
) -> Reconciled:
    """Take back what silent workers had, then send the wake-ups that the broker lacks.

    A wake-up too many is harmless: the worker that gets it finds nothing queued. So several gateways may do this.
    """
    taken_back = rows.take_back_expired(attempts_max, lease_s=lease_s)
    _tell(taken_back, work)
    sent = 0
    try:
        queued = rows.queued()
        for _ in range(min(queued - broker.waiting(work), WAKES_MAX) if queued else 0):
            broker.wake(work)
            sent += 1
    except BrokerUnavailableError:
        return Reconciled(sent, False, taken_back)
    return Reconciled(sent, True, taken_back)


def _tell(taken_back: TakenBack, work: Work) -> None:
    noun = work.noun
    for row_id in taken_back.requeued:
        log.warning("%s %s: its worker fell silent; queued again", noun, row_id, extra={"state": JobState.QUEUED.value})
    for row_id in taken_back.exhausted:
        said = {"state": JobState.FAILED.value, "code": ATTEMPTS_EXHAUSTED}
        log.warning("%s %s: its worker fell silent, in the last attempt", noun, row_id, extra=said)
    for row_id in taken_back.cancelled:
        said = {"state": JobState.CANCELLED.value}
        log.info("%s %s: cancelled, its worker had fallen silent", noun, row_id, extra=said)
