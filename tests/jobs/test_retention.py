"""Whose time is over: per client, by default, and never what an archive has still to get."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Engine

from jobs.archive import DeliveryRepository
from jobs.clients import Client, Scope
from jobs.models import JobRequest
from jobs.repository import JobRepository
from jobs.retention import DAY_S, Retention
from jobs.state import DeliveryState

OBJECT = {
    "sop_instance_uid": "1.2.3", "study_uid": "1.2", "series_uid": "1.2.1", "sop_class_uid": "1.1", "modality": "SEG",
    "file": "segmentation.dcm",
}  # fmt: skip


@pytest.fixture
def retention(engine: Engine, clock: Any) -> Retention:
    return Retention(engine, clock=clock)


@pytest.fixture
def ended(repository: JobRepository, wanted: JobRequest) -> Callable[..., str]:
    """A job of a client that ends now."""

    def ended(client: str = "ward") -> str:
        job_id = uuid4().hex
        repository.seen_by(Client(client, frozenset({Scope.SUBMIT}), "key")).create(job_id, wanted)
        repository.claim(job_id, 60.0)
        assert repository.fail(job_id, 1, "unknown_format", "")
        return job_id

    return ended


class TestOver:
    def test_by_the_deployments_days(self, retention: Retention, ended: Callable[..., str], clock: Any) -> None:
        first = ended()
        clock.now += DAY_S
        second = ended()
        clock.now += 1.5 * DAY_S
        assert retention.over(2) == [first]
        assert retention.over(1) == [first, second]
        assert retention.over(1, limit=1) == [first]
        assert retention.over(0) == [first, second]
        assert retention.over(None) == []

    def test_by_the_clients_own_days(self, retention: Retention, ended: Callable[..., str], clock: Any) -> None:
        brief, long, usual = ended("brief"), ended("long"), ended("usual")
        retention.keep("brief", 1)
        retention.keep("long", 100)
        clock.now += 10 * DAY_S
        assert retention.over(None) == [brief]
        assert set(retention.over(5)) == {brief, usual}
        clock.now += 100 * DAY_S
        assert set(retention.over(5)) == {brief, usual, long}
        assert retention.own() == {"brief": 1, "long": 100}

    def test_a_client_goes_back_to_the_deployments(self, retention: Retention, ended: Callable[..., str]) -> None:
        ended()
        for days in (1, 2, None):
            retention.keep("ward", days)
        assert retention.own() == {}

    def test_a_job_that_has_not_ended_is_kept(
        self, retention: Retention, submit: Callable[[], str], repository: JobRepository, clock: Any
    ) -> None:
        submit()
        repository.claim(submit(), 60.0)
        clock.now += 1000 * DAY_S
        assert retention.over(0) == []

    def test_what_an_archive_has_still_to_get_is_kept(
        self, engine: Engine, retention: Retention, repository: JobRepository, wanted: JobRequest, clock: Any
    ) -> None:
        request = wanted.model_copy(update={"destinations": ("first", "second")})
        job_id = repository.create(uuid4().hex, request).id
        repository.claim(job_id, 60.0)
        assert repository.succeed(job_id, 1, {"verdict": "accept"}, objects=[OBJECT])
        clock.now += 10 * DAY_S
        deliveries = DeliveryRepository(engine, clock=clock)
        assert len(deliveries.of_job(job_id)) == 2
        for destination, state in (("first", DeliveryState.DELIVERED), ("second", DeliveryState.FAILED)):
            assert retention.over(1) == []
            delivery = deliveries.claim(destination, 60.0)
            assert delivery is not None
            assert deliveries.settle(delivery, state)
        assert retention.over(1) == [job_id]
