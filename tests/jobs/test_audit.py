"""The audit log: written with what it tells of, and never changed; on both databases."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar
from uuid import uuid4

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from jobs.audit import PAGE_MAX, Action, AuditLog
from jobs.clients import Client, Scope
from jobs.models import JobRequest
from jobs.repository import JobRepository

WARD = Client("ward", frozenset({Scope.SUBMIT}), "key 1")
OTHER = Client("other", frozenset({Scope.SUBMIT}), "key 2")


@pytest.fixture
def log(engine: Engine) -> AuditLog:
    return AuditLog(engine)


def told(log: AuditLog, **wanted: str) -> list[tuple[str, str, str, str]]:
    return [(one.client, one.credential, one.action, one.subject) for one in log.list(**wanted)]  # type: ignore[arg-type]


class TestEntries:
    def test_tell_of_a_jobs_life(self, repository: JobRepository, wanted: JobRequest, log: AuditLog) -> None:
        ward, job_id = repository.seen_by(WARD), uuid4().hex
        ward.create(job_id, wanted)
        ward.request_cancel(job_id)
        ward.erase(job_id)
        actions = [Action.SUBMITTED, Action.CANCELLED, Action.ERASED]
        assert told(log) == [("ward", "key 1", one, job_id) for one in actions]

    def test_tell_of_nothing_that_did_not_happen(
        self, repository: JobRepository, wanted: JobRequest, log: AuditLog
    ) -> None:
        job_id = uuid4().hex
        repository.seen_by(WARD).create(job_id, wanted)
        stranger = repository.seen_by(OTHER)
        assert stranger.request_cancel(job_id) is None
        assert not stranger.erase(job_id)
        assert not repository.seen_by(WARD).erase(job_id)
        assert [one[2] for one in told(log)] == [Action.SUBMITTED]

    def test_are_found_by_client_and_subject_page_by_page(self, log: AuditLog) -> None:
        for number in range(3):
            log.add(WARD, Action.READ, f"job {number}")
            log.add(OTHER, Action.READ, f"job {number}")
        assert len(told(log, client="ward")) == 3
        assert [one[0] for one in told(log, subject="job 1")] == ["ward", "other"]
        first = log.list(limit=4)
        assert [one.subject for one in log.list(after=first[-1].id)] == ["job 2", "job 2"]
        assert len(log.list(limit=10 * PAGE_MAX)) == 6


class TestNobodyChangesThem:
    CHANGES: ClassVar = (
        "UPDATE audit_log SET client = 'nobody'",
        "UPDATE audit_log SET at = 0 WHERE id = 1",
        "DELETE FROM audit_log",
        "DELETE FROM audit_log WHERE id = 1",
    )
    OWN: ClassVar = {
        "sqlite": (
            "REPLACE INTO audit_log (id, at, client, credential, action, subject) VALUES (1, 0, 'x', 'x', 'x', 'x')",
            "INSERT OR REPLACE INTO audit_log SELECT id, 0, 'x', 'x', 'x', 'x' FROM audit_log",
            "INSERT INTO audit_log SELECT id, 0, 'x', 'x', 'x', 'x' FROM audit_log WHERE true "
            "ON CONFLICT (id) DO UPDATE SET client = 'x'",
        ),
        "postgresql": (
            "TRUNCATE audit_log",
            "INSERT INTO audit_log SELECT id, 0, 'x', 'x', 'x', 'x' FROM audit_log "
            "ON CONFLICT (id) DO UPDATE SET client = 'x'",
        ),
    }

    def test_the_database_refuses_it(self, engine: Engine, log: AuditLog) -> None:
        log.add(WARD, Action.READ, "a job")
        log.add(WARD, Action.ERASED, "a job")
        before = [(one.id, one.at, one.client, one.action) for one in log.list()]
        for statement in (*self.CHANGES, *self.OWN[engine.dialect.name]):
            with pytest.raises(DBAPIError), engine.begin() as connection:
                connection.execute(text(statement))
            assert [(one.id, one.at, one.client, one.action) for one in log.list()] == before, statement

    def test_what_fails_with_its_job_is_not_told(
        self, engine: Engine, repository: JobRepository, wanted: JobRequest, submit: Callable[[], str], log: AuditLog
    ) -> None:
        job_id = submit()
        with pytest.raises(DBAPIError):
            repository.create(job_id, wanted)  # the identifier is taken
        assert len(log.list()) == 1
