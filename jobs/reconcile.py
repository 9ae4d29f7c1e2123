"""Making the broker agree with the rows: what it never got, or lost, is sent again."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from jobs.errors import BrokerUnavailableError
from jobs.repository import JobRepository, TakenBack


@dataclass(frozen=True)
class Reconciled:
    """What one round did: jobs sent, jobs the broker did not take, jobs taken back from silent workers."""

    sent: int
    unsent: int
    taken_back: TakenBack


def reconcile(
    repository: JobRepository,
    send: Callable[[str], None],
    *,
    attempts_max: int,
    resend_after_s: float,
    lease_s: float = math.inf,
) -> Reconciled:
    """Take back jobs of silent workers, then send every job in the outbox; stops at the first refusal.

    Sending a job twice is harmless, because only one delivery can claim it. So several gateways may do this.
    """
    taken_back = repository.take_back_expired(attempts_max, lease_s=lease_s)
    waiting = repository.outbox(resend_after_s)
    sent = 0
    for job_id in waiting:
        if not deliver(repository, send, job_id):
            break
        sent += 1
    return Reconciled(sent=sent, unsent=len(waiting) - sent, taken_back=taken_back)


def deliver(repository: JobRepository, send: Callable[[str], None], job_id: str) -> bool:
    """Send one job and note it in its row; False where the broker is away and it stays in the outbox."""
    try:
        send(job_id)
    except BrokerUnavailableError:
        return False
    repository.mark_enqueued(job_id)
    return True
