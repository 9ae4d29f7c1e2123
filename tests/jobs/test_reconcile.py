"""The reconciler against a real Redis of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from jobs.queue import SEGMENTING, Broker, make_celery
from jobs.reconcile import reconcile
from jobs.repository import JobRepository
from ncagate.settings import Settings


@pytest.fixture
def broker(own_redis: Any) -> Broker:
    """Of a Redis that is not started."""
    return Broker(make_celery(Settings(redis_url=own_redis.url)))


def sent(repository: JobRepository, broker: Broker) -> int:
    return reconcile(repository, broker, attempts_max=3).sent


class TestReconcile:
    def test_wakes_once_for_every_job(
        self, repository: JobRepository, submit: Callable[[], str], broker: Broker, own_redis: Any
    ) -> None:
        own_redis.start()
        submit(), submit()
        assert [sent(repository, broker) for _ in range(3)] == [2, 0, 0]
        assert broker.waiting() == 2

    def test_what_the_gateway_has_woken_counts(
        self, repository: JobRepository, submit: Callable[[], str], broker: Broker, own_redis: Any
    ) -> None:
        own_redis.start()
        submit(), submit()
        broker.wake()
        assert sent(repository, broker) == 1

    def test_a_broker_that_is_away_loses_nothing(
        self, repository: JobRepository, submit: Callable[[], str], broker: Broker, own_redis: Any
    ) -> None:
        submit()
        round_ = reconcile(repository, broker, attempts_max=3)
        assert (round_.sent, round_.answered) == (0, False)
        own_redis.start()
        assert sent(repository, broker) == 1

    def test_what_the_broker_lost_is_sent_again(
        self, repository: JobRepository, submit: Callable[[], str], broker: Broker, own_redis: Any
    ) -> None:
        own_redis.start()
        submit()
        sent(repository, broker)
        with own_redis.client() as client:
            client.flushall()
        assert sent(repository, broker) == 1

    def test_a_silent_workers_job_is_taken_back_and_a_worker_woken_in_one_round(
        self, repository: JobRepository, submit: Callable[[], str], clock: Any, broker: Broker, own_redis: Any
    ) -> None:
        own_redis.start()
        job_id = submit()
        sent(repository, broker)
        repository.claim(job_id, 60.0)
        with own_redis.client() as client:
            client.delete(SEGMENTING.queue)
        clock.now += 61.0
        done = reconcile(repository, broker, attempts_max=3)
        assert (done.taken_back.requeued, done.sent) == ((job_id,), 1)

    def test_an_empty_queue_asks_the_broker_nothing(self, repository: JobRepository, broker: Broker) -> None:
        assert reconcile(repository, broker, attempts_max=3).answered
