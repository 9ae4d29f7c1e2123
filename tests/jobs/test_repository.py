from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import JSON, Engine, type_coerce, update
from sqlalchemy.exc import StatementError

from jobs.errors import ATTEMPTS_EXHAUSTED, InvalidCursorError
from jobs.models import Job, JobRequest
from jobs.repository import JobRepository, Waiting, cursor
from jobs.state import JobState, Priority
from jobs.tally import Cause

RESULT: dict[str, Any] = {
    "verdict": "accept",
    "model": "hippocampus",
    "version": "1.0.0",
    "nqm": 0.03,
    "predicted_dice": 0.91,
    "stage_seconds": {"read": 0.02, "segment": 1.5},
}


def found(repository: JobRepository, job_id: str) -> Job:
    job = repository.get(job_id)
    assert job is not None
    return job


def running(repository: JobRepository, job_id: str) -> Job:
    job = repository.claim(job_id, 60.0)
    assert job is not None
    return job


class TestCreate:
    def test_a_new_job_is_queued(
        self, repository: JobRepository, submit: Callable[[], str], wanted: JobRequest
    ) -> None:
        job = found(repository, submit())
        assert (job.state, job.attempt, job.progress, job.request) == (JobState.QUEUED, 0, 0.0, wanted)
        assert repository.queued() == 1

    def test_a_job_from_before_there_was_a_rule_has_the_default_one(
        self, repository: JobRepository, engine: Engine, submit: Callable[[], str], wanted: JobRequest
    ) -> None:
        job_id = submit()
        old = wanted.model_dump(mode="json", exclude={"alpha", "rule", "series_uid", "priority"})
        with engine.begin() as connection:
            connection.execute(update(Job).values(request=type_coerce(old, JSON)))
        request = found(repository, job_id).request
        assert (request.alpha, request.rule, request.model) == (0.05, "conformal", "hippocampus")
        assert (request.series_uid, request.priority) == (None, Priority.ROUTINE)

    def test_an_unknown_job_is_none(self, repository: JobRepository) -> None:
        assert repository.get("f" * 32) is None


class TestList:
    def test_newest_first_page_by_page(self, repository: JobRepository, submit: Callable[[], str]) -> None:
        ids = [submit() for _ in range(5)]
        pages, before = [], None
        while page := repository.list(limit=2, before=before):
            pages.append([job.id for job in page])
            before = cursor(page[-1])
        assert pages == [[ids[4], ids[3]], [ids[2], ids[1]], [ids[0]]]

    def test_by_state(self, repository: JobRepository, submit: Callable[[], str]) -> None:
        first, _ = submit(), submit()
        repository.claim(first, 60.0)
        assert [job.id for job in repository.list(state=JobState.RUNNING)] == [first]

    def test_a_foreign_cursor_is_refused(self, repository: JobRepository) -> None:
        with pytest.raises(InvalidCursorError):
            repository.list(before="yesterday")


class TestPosition:
    def test_counts_the_queued_jobs_before(self, repository: JobRepository, submit: Callable[[], str]) -> None:
        ids = [submit() for _ in range(3)]
        assert [repository.position(found(repository, one)) for one in ids] == [0, 1, 2]
        repository.claim(ids[0], 60.0)
        assert [repository.position(found(repository, one)) for one in ids] == [None, 0, 1]


class TestClaim:
    def test_counts_the_attempt_before_the_work(self, repository: JobRepository, submit: Callable[[], str]) -> None:
        job = running(repository, submit())
        assert (job.state, job.attempt) == (JobState.RUNNING, 1)
        assert job.request.members == 10

    def test_a_second_delivery_gets_nothing(self, repository: JobRepository, submit: Callable[[], str]) -> None:
        job = running(repository, submit())
        assert repository.claim(job.id, 60.0) is None
        assert found(repository, job.id).attempt == 1

    def test_a_cancelled_job_is_not_claimed(self, repository: JobRepository, submit: Callable[[], str]) -> None:
        job_id = submit()
        repository.request_cancel(job_id)
        assert repository.claim(job_id, 60.0) is None


class TestUnderWay:
    def test_counts_what_waits_and_what_runs_up_to_a_number(
        self, repository: JobRepository, submit: Callable[[], str]
    ) -> None:
        assert repository.under_way(4) == 0
        ended = running(repository, submit())
        repository.fail(ended.id, ended.attempt, "x", "y")
        running(repository, submit())
        submit()
        assert repository.under_way(4) == 2
        assert repository.under_way(1) == 1


class TestHeartbeat:
    def test_reports_progress(self, repository: JobRepository, submit: Callable[[], str]) -> None:
        job = running(repository, submit())
        assert repository.heartbeat(job.id, 1, progress=0.5, stage="segment", lease_s=60.0)
        assert (found(repository, job.id).progress, found(repository, job.id).stage) == (0.5, "segment")

    def test_extends_the_lease(self, repository: JobRepository, submit: Callable[[], str], clock: Any) -> None:
        job = running(repository, submit())
        clock.now += 50.0
        repository.heartbeat(job.id, 1, progress=0.5, stage="segment", lease_s=60.0)
        clock.now += 50.0
        assert repository.take_back_expired(3).requeued == ()

    def test_says_stop_after_a_cancel(self, repository: JobRepository, submit: Callable[[], str]) -> None:
        job = running(repository, submit())
        assert repository.request_cancel(job.id) is JobState.RUNNING
        assert not repository.heartbeat(job.id, 1, progress=0.5, stage="segment", lease_s=60.0)

    def test_says_stop_to_an_attempt_that_was_superseded(
        self, repository: JobRepository, submit: Callable[[], str], clock: Any
    ) -> None:
        job = running(repository, submit())
        clock.now += 61.0
        repository.take_back_expired(3)
        assert running(repository, job.id).attempt == 2
        assert not repository.heartbeat(job.id, 1, progress=0.9, stage="write", lease_s=60.0)
        assert repository.heartbeat(job.id, 2, progress=0.1, stage="read", lease_s=60.0)


class TestEnding:
    def test_success_keeps_the_record(self, repository: JobRepository, submit: Callable[[], str]) -> None:
        job = running(repository, submit())
        assert repository.succeed(job.id, 1, RESULT)
        done = found(repository, job.id)
        assert (done.state, done.result, done.progress, done.finished) == (JobState.SUCCEEDED, RESULT, 1.0, True)

    def test_failure_keeps_code_and_detail(self, repository: JobRepository, submit: Callable[[], str]) -> None:
        job = running(repository, submit())
        assert repository.fail(job.id, 1, "gzip_truncated", "the file ends early")
        done = found(repository, job.id)
        assert (done.state, done.error_code, done.error_detail) == (
            JobState.FAILED, "gzip_truncated", "the file ends early",
        )  # fmt: skip

    def test_an_end_is_final(self, repository: JobRepository, submit: Callable[[], str]) -> None:
        job = running(repository, submit())
        assert repository.cancelled(job.id, 1)
        assert not repository.succeed(job.id, 1, RESULT)
        assert not repository.fail(job.id, 1, "late", "too late")
        assert repository.request_cancel(job.id) is JobState.CANCELLED
        assert found(repository, job.id).state is JobState.CANCELLED

    def test_a_queued_job_cannot_end_without_a_claim(
        self, repository: JobRepository, submit: Callable[[], str]
    ) -> None:
        assert not repository.succeed(submit(), 0, RESULT)

    def test_a_superseded_attempt_ends_nothing(
        self, repository: JobRepository, submit: Callable[[], str], clock: Any
    ) -> None:
        job = running(repository, submit())
        clock.now += 61.0
        repository.take_back_expired(3)
        running(repository, job.id)
        assert not repository.succeed(job.id, 1, RESULT)
        assert repository.succeed(job.id, 2, RESULT)

    def test_a_record_that_is_not_json_leaves_the_job_running(
        self, repository: JobRepository, submit: Callable[[], str]
    ) -> None:
        job = running(repository, submit())
        with pytest.raises((StatementError, ValueError)):
            repository.succeed(job.id, 1, RESULT | {"volume_ml": math.nan})
        assert found(repository, job.id).state is JobState.RUNNING


class TestRequestCancel:
    def test_ends_a_queued_job_at_once(self, repository: JobRepository, submit: Callable[[], str]) -> None:
        job_id = submit()
        assert repository.request_cancel(job_id) is JobState.CANCELLED
        assert found(repository, job_id).finished_at is not None

    def test_of_an_unknown_job_is_none(self, repository: JobRepository) -> None:
        assert repository.request_cancel("f" * 32) is None


class TestTakeBackExpired:
    def test_a_silent_workers_job_returns_to_the_queue(
        self, repository: JobRepository, submit: Callable[[], str], clock: Any
    ) -> None:
        job = running(repository, submit())
        clock.now += 61.0
        assert repository.take_back_expired(3).requeued == (job.id,)
        assert repository.queued() == 1

    def test_a_lease_given_before_the_clock_was_set_back_has_run_out(
        self, repository: JobRepository, submit: Callable[[], str], clock: Any
    ) -> None:
        job = running(repository, submit())
        assert repository.take_back_expired(3, lease_s=60.0).requeued == ()
        clock.now -= 61.0
        assert repository.take_back_expired(3, lease_s=60.0).requeued == (job.id,)

    def test_a_poison_job_fails_after_the_last_attempt(
        self, repository: JobRepository, submit: Callable[[], str], clock: Any
    ) -> None:
        job_id = submit()
        for _ in range(3):
            running(repository, job_id)
            clock.now += 61.0
            taken = repository.take_back_expired(3)
        assert taken.exhausted == (job_id,)
        done = found(repository, job_id)
        assert (done.state, done.error_code, done.attempt) == (JobState.FAILED, ATTEMPTS_EXHAUSTED, 3)

    def test_a_job_to_be_cancelled_is_not_started_again(
        self, repository: JobRepository, submit: Callable[[], str], clock: Any
    ) -> None:
        job = running(repository, submit())
        repository.request_cancel(job.id)
        clock.now += 61.0
        assert repository.take_back_expired(3).cancelled == (job.id,)
        assert found(repository, job.id).state is JobState.CANCELLED


class TestHandBack:
    def test_queues_the_job_for_another_attempt(self, repository: JobRepository, submit: Callable[[], str]) -> None:
        job = running(repository, submit())
        assert repository.hand_back(job.id, 1, cause=Cause.BROKE)
        assert repository.queued() == 1
        assert running(repository, job.id).attempt == 2

    def test_ends_a_job_that_was_to_be_cancelled(self, repository: JobRepository, submit: Callable[[], str]) -> None:
        job = running(repository, submit())
        repository.request_cancel(job.id)
        assert repository.hand_back(job.id, 1, cause=Cause.BROKE)
        assert found(repository, job.id).state is JobState.CANCELLED
        assert found(repository, job.id).finished_at is not None
        assert repository.totals().counters["jobs_total"] == {("cancelled", ""): 1.0}

    def test_is_refused_to_a_superseded_attempt(
        self, repository: JobRepository, submit: Callable[[], str], clock: Any
    ) -> None:
        job = running(repository, submit())
        clock.now += 61.0
        repository.take_back_expired(3)
        running(repository, job.id)
        assert not repository.hand_back(job.id, 1, cause=Cause.BROKE)
        assert found(repository, job.id).state is JobState.RUNNING


class TestErase:
    def test_only_a_finished_job(self, repository: JobRepository, submit: Callable[[], str]) -> None:
        job = running(repository, submit())
        assert not repository.erase(job.id)
        repository.fail(job.id, 1, "x", "y")
        assert repository.erase(job.id)
        assert not repository.erase(job.id)
        assert repository.get(job.id) is None


class TestStatus:
    def test_counts_states_and_ages_the_queue(
        self, repository: JobRepository, submit: Callable[[], str], clock: Any
    ) -> None:
        first, _, _ = submit(), submit(), submit()
        repository.claim(first, 60.0)
        clock.now += 10.0
        status = repository.status()
        assert (status.counts[JobState.QUEUED], status.counts[JobState.RUNNING]) == (2, 1)
        assert status.waiting[Priority.ROUTINE] == Waiting(2, 11.0)

    def test_an_empty_queue_has_no_age(self, repository: JobRepository) -> None:
        assert repository.status().waiting == dict.fromkeys(Priority, Waiting(0, 0.0))

    def test_priorities_wait_apart(self, repository: JobRepository, wanted: JobRequest, clock: Any) -> None:
        repository.create("a" * 32, wanted.model_copy(update={"priority": Priority.URGENT}))
        clock.now += 5.0
        repository.create("b" * 32, wanted)
        clock.now += 1.0
        assert repository.status().waiting == {Priority.URGENT: Waiting(1, 6.0), Priority.ROUTINE: Waiting(1, 1.0)}


class TestTotals:
    def test_outlive_erasure_and_count_once(self, repository: JobRepository, submit: Callable[[], str]) -> None:
        job = running(repository, submit())
        for _ in range(2):
            repository.succeed(job.id, 1, RESULT)
        repository.erase(job.id)
        totals = repository.totals()
        assert totals.counters["jobs_total"] == {("succeeded", ""): 1.0}
        assert totals.counters["verdicts_total"] == {("hippocampus", "1.0.0", "accept"): 1.0}
        assert totals.histograms["nqm"][("hippocampus", "1.0.0")].total == pytest.approx(0.03)

    def test_every_end_is_counted(self, repository: JobRepository, submit: Callable[[], str], clock: Any) -> None:
        repository.request_cancel(submit())
        repository.fail(running(repository, submit()).id, 1, "x", "y")
        running(repository, submit())
        clock.now += 61.0
        repository.take_back_expired(1)
        assert repository.totals().counters["jobs_total"] == {
            ("cancelled", ""): 1.0,
            ("failed", "x"): 1.0,
            ("failed", "attempts_exhausted"): 1.0,
        }

    def test_attempts_and_what_is_tried_again_are_counted(
        self, repository: JobRepository, submit: Callable[[], str], clock: Any
    ) -> None:
        lost, stopped = running(repository, submit()), running(repository, submit())
        repository.hand_back(stopped.id, 1, cause=Cause.WORKER_STOPPED)
        clock.now += 61.0
        assert repository.take_back_expired(3).requeued == (lost.id,)
        counters = repository.totals().counters
        assert counters["attempts_total"] == {(): 2.0}
        assert counters["retries_total"] == {("worker_lost",): 1.0, ("worker_stopped",): 1.0}

    def test_a_reason_that_several_structures_have_counts_once(
        self, repository: JobRepository, submit: Callable[[], str]
    ) -> None:
        reasons = [{"code": "empty", "detail": "of one"}, {"code": "empty", "detail": "of another"}]
        repository.succeed(running(repository, submit()).id, 1, RESULT | {"verdict": "flag", "reasons": reasons})
        assert repository.totals().counters["flag_reasons_total"] == {("hippocampus", "1.0.0", "empty"): 1.0}

    def test_histograms_are_cumulative(self, repository: JobRepository, submit: Callable[[], str], clock: Any) -> None:
        for wait in (0.0, 4.0, 10_000.0):
            job_id = submit()
            clock.now += wait
            repository.claim(job_id, 60.0)
        waits = repository.totals().histograms["queue_wait_seconds"][("routine",)]
        counts = [count for _, count in waits.buckets]
        assert all(a <= b for a, b in pairwise(counts))
        assert dict(waits.buckets)["5.0"] == 2.0
        assert waits.buckets[-1] == ("+Inf", 3.0)

    def test_an_undefined_nqm_is_not_observed(self, repository: JobRepository, submit: Callable[[], str]) -> None:
        repository.succeed(running(repository, submit()).id, 1, RESULT | {"nqm": None})
        assert repository.totals().histograms["nqm"] == {}
