"""Word of a job's end is owed from the very moment of the end, however it ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest

from jobs.archive import WEBHOOK, DeliveryRepository
from jobs.models import JobRequest
from jobs.repository import JobRepository
from jobs.state import DeliveryState, JobState
from jobs.tally import Cause

URL = "https://ris.example.org/hook"
LEASE_S = 60.0
End = Callable[[JobRepository, str, Callable[[float], None]], object]


def cancel_queued(repository: JobRepository, job_id: str, wait: Callable[[float], None]) -> object:
    return repository.request_cancel(job_id)


def started(repository: JobRepository, job_id: str) -> int:
    job = repository.claim(job_id, LEASE_S)
    assert job is not None
    return job.attempt


def succeed(repository: JobRepository, job_id: str, wait: Callable[[float], None]) -> object:
    return repository.succeed(job_id, started(repository, job_id), {"verdict": "accept"})


def fail(repository: JobRepository, job_id: str, wait: Callable[[float], None]) -> object:
    return repository.fail(job_id, started(repository, job_id), "empty_file", "no bytes")


def cancel_running(repository: JobRepository, job_id: str, wait: Callable[[float], None]) -> object:
    attempt = started(repository, job_id)
    repository.request_cancel(job_id)
    return repository.cancelled(job_id, attempt)


def hand_back_cancelled(repository: JobRepository, job_id: str, wait: Callable[[float], None]) -> object:
    attempt = started(repository, job_id)
    repository.request_cancel(job_id)
    return repository.hand_back(job_id, attempt, cause=Cause.BROKE)


def expire_cancelled(repository: JobRepository, job_id: str, wait: Callable[[float], None]) -> object:
    started(repository, job_id)
    repository.request_cancel(job_id)
    wait(LEASE_S + 1.0)
    return repository.take_back_expired(3)


def exhaust(repository: JobRepository, job_id: str, wait: Callable[[float], None]) -> object:
    started(repository, job_id)
    wait(LEASE_S + 1.0)
    return repository.take_back_expired(1)


ENDS: list[tuple[End, JobState]] = [
    (succeed, JobState.SUCCEEDED),
    (fail, JobState.FAILED),
    (exhaust, JobState.FAILED),
    (cancel_queued, JobState.CANCELLED),
    (cancel_running, JobState.CANCELLED),
    (hand_back_cancelled, JobState.CANCELLED),
    (expire_cancelled, JobState.CANCELLED),
]


@pytest.fixture
def create(repository: JobRepository, wanted: JobRequest) -> Callable[..., str]:
    """Creates a queued job with this webhook; its identifier."""
    return lambda url=URL: repository.create(uuid4().hex, wanted.model_copy(update={"webhook": url})).id


@pytest.fixture
def deliveries(repository: JobRepository, clock: Any) -> DeliveryRepository:
    return DeliveryRepository(repository.engine, clock=clock)


class TestEnds:
    @pytest.mark.parametrize(("end", "state"), ENDS)
    def test_each_is_owed_one_word_at_once(
        self,
        repository: JobRepository,
        deliveries: DeliveryRepository,
        clock: Any,
        create: Callable[..., str],
        end: End,
        state: JobState,
    ) -> None:
        job_id = create()

        def wait(seconds: float) -> None:
            clock.now += seconds

        assert deliveries.of_job(job_id) == []
        assert end(repository, job_id, wait)
        job = repository.get(job_id)
        assert job is not None
        assert job.state is state
        (one,) = deliveries.of_job(job_id)
        assert (one.destination, one.state, one.due_at, one.attempts) == (WEBHOOK, "pending", job.finished_at, 0)
        repository.request_cancel(job_id)
        repository.take_back_expired(1)
        assert len(deliveries.of_job(job_id)) == 1
        claimed = deliveries.claim(WEBHOOK, LEASE_S)
        assert claimed is not None
        assert (claimed.job_id, claimed.attempts) == (job_id, 1)

    @pytest.mark.parametrize("end", [end for end, _ in ENDS])
    def test_without_a_webhook_nobody_is_told(
        self,
        repository: JobRepository,
        deliveries: DeliveryRepository,
        clock: Any,
        create: Callable[..., str],
        end: End,
    ) -> None:
        job_id = create(None)

        def wait(seconds: float) -> None:
            clock.now += seconds

        end(repository, job_id, wait)
        assert deliveries.of_job(job_id) == []

    def test_a_job_that_goes_on_owes_nothing(
        self, repository: JobRepository, deliveries: DeliveryRepository, create: Callable[..., str]
    ) -> None:
        job_id = create()
        attempt = started(repository, job_id)
        repository.hand_back(job_id, attempt, cause=Cause.BROKE)
        assert not repository.fail(job_id, attempt, "empty_file", "no bytes")
        started(repository, job_id)
        repository.request_cancel(job_id)
        assert deliveries.of_job(job_id) == []

    def test_goes_with_the_job(
        self, repository: JobRepository, deliveries: DeliveryRepository, create: Callable[..., str]
    ) -> None:
        job_id = create()
        repository.request_cancel(job_id)
        assert repository.erase(job_id)
        assert deliveries.of_job(job_id) == []
        assert deliveries.claim(WEBHOOK, LEASE_S) is None


class TestOrder:
    def test_what_was_tried_before_keeps_nothing_new_waiting(
        self,
        repository: JobRepository,
        deliveries: DeliveryRepository,
        clock: Any,
        create: Callable[..., str],
    ) -> None:
        old, new = create(), create()
        repository.request_cancel(old)
        claimed = deliveries.claim(WEBHOOK, LEASE_S)
        assert claimed is not None
        deliveries.postpone(claimed, 5.0, error="no answer")
        clock.now += 60.0
        repository.request_cancel(new)
        order = [deliveries.claim(WEBHOOK, LEASE_S) for _ in range(3)]
        assert [one and one.job_id for one in order] == [new, old, None]
        assert [one.state for one in deliveries.of_job(old)] == [DeliveryState.PENDING]
