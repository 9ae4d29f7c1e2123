"""Whose turn it is."""

from __future__ import annotations

from collections import Counter
from typing import Any
from uuid import uuid4

import pytest

from jobs.clients import Client
from jobs.models import JobRequest
from jobs.repository import JobRepository
from jobs.state import Priority


class Queue:
    """Submits for several clients, and takes jobs as a worker does."""

    def __init__(self, repository: JobRepository, clock: Any, wanted: JobRequest) -> None:
        self.repository, self.clock, self.wanted = repository, clock, wanted

    def submit(self, client: str, *, priority: Priority = Priority.ROUTINE) -> str:
        self.clock.now += 1.0
        request = self.wanted.model_copy(update={"priority": priority})
        return self.repository.seen_by(Client(client, frozenset(), "test")).create(uuid4().hex, request).id

    def take(self) -> str:
        self.clock.now += 1.0
        job = self.repository.claim_next(60.0)
        return "" if job is None else job.client

    def drain(self) -> list[str]:
        return list(iter(self.take, ""))


@pytest.fixture
def queue(repository: JobRepository, clock: Any, wanted: JobRequest) -> Queue:
    return Queue(repository, clock, wanted)


class TestTurns:
    def test_of_one_client_the_oldest_goes_first(self, queue: Queue) -> None:
        ids = [queue.submit("a") for _ in range(3)]
        taken = [queue.repository.claim_next(60.0) for _ in range(3)]
        assert [job.id for job in taken if job] == ids

    def test_a_thousand_scans_do_not_keep_one_waiting(self, queue: Queue) -> None:
        for _ in range(20):
            queue.submit("busy")
        queue.take()
        queue.submit("small")
        assert queue.take() == "small"

    def test_clients_take_turns(self, queue: Queue) -> None:
        for client in ("a", "a", "a", "b", "b", "b", "c"):
            queue.submit(client)
        order = queue.drain()
        assert sorted(order[:3]) == ["a", "b", "c"]
        assert Counter(order) == {"a": 3, "b": 3, "c": 1}
        assert order[3:] in (["a", "b"] * 2, ["b", "a"] * 2)

    def test_waiting_idle_earns_no_more_than_the_next_turn(self, queue: Queue) -> None:
        for _ in range(4):
            queue.submit("old")
        for _ in range(2):
            queue.take()
        for _ in range(3):
            queue.submit("new")
        assert queue.drain() == ["new", "old", "new", "old", "new"]

    def test_urgent_goes_before_routine_whoever_sent_it(self, queue: Queue) -> None:
        queue.submit("a")
        queue.submit("b", priority=Priority.URGENT)
        queue.submit("b", priority=Priority.URGENT)
        assert queue.drain() == ["b", "b", "a"]

    def test_urgent_counts_as_ahead(self, queue: Queue) -> None:
        routine = queue.submit("a")
        urgent = queue.submit("b", priority=Priority.URGENT)
        assert [queue.repository.position(one) for one in (routine, urgent)] == [1, 0]

    def test_nothing_queued_is_nobodys_turn(self, queue: Queue) -> None:
        assert queue.take() == ""
