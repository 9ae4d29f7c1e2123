"""Which workers show that they work, with a real Redis for their canaries."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Engine

from jobs.queue import Broker, make_celery
from jobs.workers import AGAIN, FORGOTTEN_S, WorkerRepository, send_canaries
from ncagate.settings import Settings

EVERY_S = 15.0
MIDWAY_S = EVERY_S / 2


@pytest.fixture
def workers(engine: Engine, clock: Any) -> WorkerRepository:
    return WorkerRepository(engine, clock=clock)


@pytest.fixture
def broker(own_redis: Any) -> Broker:
    """Of a Redis that is not started."""
    return Broker(make_celery(Settings(redis_url=own_redis.url)))


class TestSilences:
    def test_a_worker_that_begins_has_shown_nothing(self, workers: WorkerRepository, clock: Any) -> None:
        workers.started("one")
        clock.now += 3.0
        assert workers.silences() == {"one": (False, 3.0)}

    def test_what_it_does_ends_the_silence(self, workers: WorkerRepository, clock: Any) -> None:
        for name in ("one", "deaf"):
            workers.started(name)
        clock.now += 30.0
        workers.seen("one")
        clock.now += 1.0
        assert workers.silences() == {"one": (True, 1.0), "deaf": (False, 31.0)}

    def test_one_that_signs_off_is_no_worker(self, workers: WorkerRepository) -> None:
        workers.started("one")
        workers.signed_off("one")
        assert workers.silences() == {}

    def test_what_one_process_has_shown_another_one_that_begins_takes_not_back(
        self, workers: WorkerRepository, clock: Any
    ) -> None:
        workers.started("one")
        workers.seen("one")
        clock.now += 1.0
        workers.started("one")
        assert workers.silences() == {"one": (True, 1.0)}

    def test_one_that_was_forgotten_comes_back_by_working(self, workers: WorkerRepository, clock: Any) -> None:
        workers.started("one")
        clock.now += FORGOTTEN_S + 1.0
        assert workers.forget(FORGOTTEN_S) == ["one"]
        workers.seen("one")
        assert workers.silences() == {"one": (True, 0.0)}


class TestAsk:
    def test_one_that_has_shown_nothing_is_asked_at_once_and_once(self, workers: WorkerRepository, clock: Any) -> None:
        workers.started("one")
        assert [workers.ask(EVERY_S) for _ in range(2)] == [["one"], []]
        clock.now += EVERY_S + 1.0
        assert workers.ask(EVERY_S) == []

    def test_one_that_answers_is_asked_again_after_the_interval(self, workers: WorkerRepository, clock: Any) -> None:
        workers.started("one")
        workers.ask(EVERY_S)
        workers.seen("one")
        clock.now += MIDWAY_S
        assert workers.ask(EVERY_S) == []
        clock.now += EVERY_S
        assert workers.ask(EVERY_S) == ["one"]

    def test_one_that_works_on_a_job_is_not_asked(self, workers: WorkerRepository, clock: Any) -> None:
        workers.started("one")
        for _ in range(5):
            clock.now += MIDWAY_S
            workers.seen("one")
            assert workers.ask(EVERY_S) == []

    def test_one_that_begins_again_is_asked_at_once(self, workers: WorkerRepository, clock: Any) -> None:
        workers.started("one")
        workers.ask(EVERY_S)
        clock.now += EVERY_S + 1.0
        workers.started("one")
        assert workers.ask(EVERY_S) == ["one"]

    def test_a_canary_that_may_be_lost_is_sent_again(self, workers: WorkerRepository, clock: Any) -> None:
        workers.started("one")
        workers.ask(EVERY_S)
        clock.now += AGAIN * EVERY_S + 1.0
        assert workers.ask(EVERY_S) == ["one"]

    def test_waits_for_no_clock_that_was_set_back(self, workers: WorkerRepository, clock: Any) -> None:
        workers.started("one")
        workers.ask(EVERY_S)
        workers.seen("one")
        clock.now -= 3600.0
        assert workers.ask(EVERY_S) == ["one"]


class TestSendCanaries:
    def test_each_worker_gets_its_own(self, workers: WorkerRepository, broker: Broker, own_redis: Any) -> None:
        own_redis.start()
        for name in ("one", "two"):
            workers.started(name)
        for _ in range(2):
            send_canaries(workers, broker, every_s=EVERY_S)
        with own_redis.client() as client:
            assert [client.llen(f"canary.{name}") for name in ("one", "two")] == [1, 1]
        assert broker.waiting() == 0

    def test_nothing_is_left_of_one_that_is_forgotten(
        self, workers: WorkerRepository, broker: Broker, own_redis: Any, clock: Any
    ) -> None:
        own_redis.start()
        workers.started("one")
        send_canaries(workers, broker, every_s=EVERY_S)
        clock.now += FORGOTTEN_S + 1.0
        send_canaries(workers, broker, every_s=EVERY_S)
        with own_redis.client() as client:
            assert [key for key in client.scan_iter() if b"canary" in key] == []

    def test_a_broker_that_is_away_is_no_matter(
        self, workers: WorkerRepository, broker: Broker, own_redis: Any, clock: Any
    ) -> None:
        workers.started("one")
        send_canaries(workers, broker, every_s=EVERY_S)
        own_redis.start()
        clock.now += AGAIN * EVERY_S + 1.0
        send_canaries(workers, broker, every_s=EVERY_S)
        with own_redis.client() as client:
            assert client.llen("canary.one") == 1
