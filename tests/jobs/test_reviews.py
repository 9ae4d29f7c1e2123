"""What people say of masks: added, never changed, gone with the job; on both databases."""

from __future__ import annotations

from collections.abc import Callable
from uuid import uuid4

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from jobs import reviews
from jobs.audit import Action, AuditLog
from jobs.clients import NOBODY, Client, Scope
from jobs.models import JobRequest
from jobs.repository import JobRepository
from jobs.reviews import ReviewRepository
from jobs.state import Decision

WARD = Client("ward", frozenset({Scope.SUBMIT}), "key 1")
OTHER = Client("other", frozenset({Scope.SUBMIT}), "key 2")


@pytest.fixture
def done(repository: JobRepository, wanted: JobRequest) -> Callable[[], str]:
    """Makes a job of the ward's that has succeeded."""

    def make() -> str:
        job_id = uuid4().hex
        repository.seen_by(WARD).create(job_id, wanted)
        job = repository.claim(job_id, 60.0)
        assert job is not None
        assert repository.succeed(job_id, job.attempt, {"verdict": "flag"})
        return job_id

    return make


@pytest.fixture
def ward(engine: Engine) -> ReviewRepository:
    return ReviewRepository(engine).seen_by(WARD)


class TestAdding:
    def test_keeps_who_what_and_when(self, ward: ReviewRepository, done: Callable[[], str], engine: Engine) -> None:
        job = done()
        ward.add(job, Decision.REJECT, comment="half of it is missing", reviewer="AB")
        (found,) = ward.of_job(job)
        assert (found.client, found.credential, found.reviewer) == ("ward", "key 1", "AB")
        assert (found.decision, found.comment) == (Decision.REJECT, "half of it is missing")
        assert found.at > 1_000_000_000
        assert [one.action for one in AuditLog(engine).list(subject=job)] == [Action.SUBMITTED, Action.REVIEWED]

    def test_takes_only_jobs_that_have_a_mask_and_are_the_clients_own(
        self, ward: ReviewRepository, done: Callable[[], str], repository: JobRepository, wanted: JobRequest
    ) -> None:
        job, queued = done(), uuid4().hex
        repository.seen_by(WARD).create(queued, wanted)
        assert ward.add(queued, Decision.CONFIRM) is None
        assert ward.add("0" * 32, Decision.CONFIRM) is None
        assert ward.seen_by(OTHER).add(job, Decision.CONFIRM) is None
        assert ward.of_job(job) == []

    def test_other_clients_see_none_of_it(self, ward: ReviewRepository, done: Callable[[], str]) -> None:
        job = done()
        ward.add(job, Decision.CONFIRM)
        assert ward.seen_by(OTHER).of_job(job) == []
        assert len(ward.seen_by(NOBODY).of_job(job)) == 1


class TestStanding:
    def test_is_the_last_decision_and_no_comment(self, ward: ReviewRepository, done: Callable[[], str]) -> None:
        job, other = done(), done()
        for decision in (Decision.CONFIRM, Decision.REJECT, Decision.COMMENT):
            ward.add(job, decision)
        ward.add(other, Decision.COMMENT)
        assert {name: one.decision for name, one in ward.standing([job, other]).items()} == {job: Decision.REJECT}

    def test_all_of_them_are_read_page_by_page(
        self, ward: ReviewRepository, done: Callable[[], str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(reviews, "PAGE", 2)
        jobs = [done() for _ in range(5)]
        for job in jobs:
            ward.add(job, Decision.CONFIRM)
        ward.add(jobs[0], Decision.REJECT)  # which is the newest now
        decided = [(job.id, review.decision) for job, review in ward.decided()]
        assert decided == [(job, Decision.CONFIRM) for job in jobs[1:]] + [(jobs[0], Decision.REJECT)]
        assert list(ward.seen_by(OTHER).decided()) == []


class TestOnlyGrows:
    @pytest.mark.parametrize(
        "change",
        [
            "UPDATE reviews SET decision = 'confirm'",
            "DELETE FROM reviews",
            "INSERT INTO reviews SELECT * FROM reviews",
        ],
    )
    def test_nobody_changes_what_was_written(
        self, ward: ReviewRepository, done: Callable[[], str], engine: Engine, change: str
    ) -> None:
        job = done()
        ward.add(job, Decision.REJECT)
        with pytest.raises(DBAPIError), engine.begin() as connection:
            connection.execute(text(change))
        assert [one.decision for one in ward.of_job(job)] == [Decision.REJECT]

    def test_they_go_with_their_job(
        self, ward: ReviewRepository, done: Callable[[], str], repository: JobRepository, engine: Engine
    ) -> None:
        job, kept = done(), done()
        ward.add(job, Decision.REJECT)
        ward.add(kept, Decision.CONFIRM)
        assert repository.erase(job)
        with engine.connect() as connection:
            assert list(connection.execute(text("SELECT job_id FROM reviews")).scalars()) == [kept]
