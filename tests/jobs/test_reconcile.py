from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jobs.errors import BrokerUnavailableError
from jobs.reconcile import deliver, reconcile
from jobs.repository import JobRepository


class Broker:
    """Takes messages while it is up."""

    def __init__(self) -> None:
        self.up = True
        self.taken: list[str] = []

    def send(self, job_id: str) -> None:
        if not self.up:
            raise BrokerUnavailableError("away")
        self.taken.append(job_id)


class TestReconcile:
    def test_sends_the_outbox_once(self, repository: JobRepository, submit: Callable[[], str]) -> None:
        broker, ids = Broker(), [submit(), submit()]
        rounds = [reconcile(repository, broker.send, attempts_max=3, resend_after_s=300.0).sent for _ in range(2)]
        assert (rounds, broker.taken) == ([2, 0], ids)

    def test_a_broker_that_is_away_loses_nothing(self, repository: JobRepository, submit: Callable[[], str]) -> None:
        broker, ids = Broker(), [submit(), submit()]
        broker.up = False
        assert reconcile(repository, broker.send, attempts_max=3, resend_after_s=300.0).unsent == 2
        broker.up = True
        reconcile(repository, broker.send, attempts_max=3, resend_after_s=300.0)
        assert broker.taken == ids

    def test_what_the_broker_lost_is_sent_again(
        self, repository: JobRepository, submit: Callable[[], str], clock: Any
    ) -> None:
        broker, job_id = Broker(), submit()
        deliver(repository, broker.send, job_id)
        clock.now += 301.0
        reconcile(repository, broker.send, attempts_max=3, resend_after_s=300.0)
        assert broker.taken == [job_id, job_id]

    def test_a_silent_workers_job_is_taken_back_and_sent_in_one_round(
        self, repository: JobRepository, submit: Callable[[], str], clock: Any
    ) -> None:
        broker, job_id = Broker(), submit()
        deliver(repository, broker.send, job_id)
        repository.claim(job_id, 60.0)
        clock.now += 61.0
        done = reconcile(repository, broker.send, attempts_max=3, resend_after_s=300.0)
        assert (done.taken_back.requeued, broker.taken) == ((job_id,), [job_id, job_id])
