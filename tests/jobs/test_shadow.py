from __future__ import annotations

from collections.abc import Callable
from uuid import uuid4

import pytest
from sqlalchemy import Engine, func, select

from jobs.models import JobRequest, Shadow
from jobs.repository import JobRepository
from jobs.shadow import BACKLOG, Finding, Pair, Shadows, chosen
from tests.jobs.conftest import Clock

PAIR = Pair("tiny", "1.0.0", "2.0.0")
SAME = Finding(dice=1.0, nqm=0.0, predicted_dice=0.0, verdict_changed=False, seconds=2.0, candidate_seconds=1.0)
Done = Callable[..., str]


@pytest.fixture
def shadows(engine: Engine, clock: Clock) -> Shadows:
    return Shadows(engine, clock=clock)


@pytest.fixture
def done(repository: JobRepository, clock: Clock) -> Done:
    """A job that has succeeded, one second after the one before; its identifier."""

    def make(*, version: str = "1.0.0", succeeds: bool = True) -> str:
        clock.now += 1.0
        job_id = repository.create(uuid4().hex, JobRequest(model="tiny", version=version, min_dice=0.8, members=1)).id
        job = repository.claim(job_id, 60.0)
        assert job is not None
        if succeeds:
            assert repository.succeed(job_id, job.attempt, {"seconds": 2.0})
        else:
            assert repository.fail(job_id, job.attempt, "gzip_truncated", "it ends early")
        return job_id

    return make


class TestChosen:
    def test_is_the_share_and_the_same_every_time(self) -> None:
        jobs = [f"{number:032x}" for number in range(4000)]
        first = [chosen(job, 0.25) for job in jobs]
        assert first == [chosen(job, 0.25) for job in jobs]
        assert 0.22 < sum(first) / len(jobs) < 0.28

    def test_a_larger_share_has_the_smaller_one_in_it(self) -> None:
        jobs = [f"{number:032x}" for number in range(500)]
        assert {job for job in jobs if chosen(job, 0.1)} <= {job for job in jobs if chosen(job, 0.3)}
        assert not any(chosen(job, 0.0) for job in jobs)
        assert all(chosen(job, 1.0) for job in jobs)


class TestBegin:
    def test_takes_each_of_the_versions_jobs_once_newest_first(self, shadows: Shadows, done: Done) -> None:
        older, newer = done(), done()
        done(version="0.9.0")
        done(succeeds=False)
        begun = [shadows.begin(PAIR, 1.0) for _ in range(3)]
        assert [None if job is None else job.id for job in begun] == [newer, older, None]

    def test_takes_none_beyond_the_share(self, shadows: Shadows, done: Done) -> None:
        jobs = [done() for _ in range(20)]
        share, begun = 0.3, set()
        while (job := shadows.begin(PAIR, share)) is not None:
            begun.add(job.id)
        assert begun == {job_id for job_id in jobs if chosen(job_id, share)}

    def test_goes_back_a_bounded_number_of_jobs(self, shadows: Shadows, done: Done) -> None:
        jobs = [done() for _ in range(BACKLOG + 2)]
        begun = [job.id for _ in range(BACKLOG + 2) if (job := shadows.begin(PAIR, 1.0)) is not None]
        assert begun == jobs[:1:-1]

    def test_what_was_interrupted_is_taken_again_and_what_broke_is_not(self, shadows: Shadows, done: Done) -> None:
        interrupted, broken = done(), done()
        for job_id in (broken, interrupted):
            begun = shadows.begin(PAIR, 1.0)
            assert begun is not None
            assert begun.id == job_id
        shadows.forget(interrupted, PAIR)
        shadows.failed(broken, PAIR, "internal_error")
        again = shadows.begin(PAIR, 1.0)
        assert again is not None
        assert again.id == interrupted
        assert shadows.begin(PAIR, 1.0) is None

    def test_another_candidate_is_tried_on_the_same_jobs(self, shadows: Shadows, done: Done) -> None:
        done()
        assert shadows.begin(PAIR, 1.0) is not None
        assert shadows.begin(Pair("tiny", "1.0.0", "3.0.0"), 1.0) is not None


class TestCompare:
    def test_sums_up_what_was_found(self, shadows: Shadows, done: Done) -> None:
        other = Finding(
            dice=0.8, nqm=0.02, predicted_dice=None, verdict_changed=True, seconds=2.0, candidate_seconds=6.0
        )
        for finding in (SAME, other):
            shadows_job = done()
            assert shadows.begin(PAIR, 1.0) is not None
            shadows.compared(shadows_job, PAIR, finding)
        for code in ("too_slow", "too_slow", None):
            job_id = done()
            assert shadows.begin(PAIR, 1.0) is not None
            if code is not None:
                shadows.failed(job_id, PAIR, code)
        (pair,) = shadows.pairs("tiny")
        found = shadows.compare(pair)
        assert (found.pair, found.jobs, found.verdicts_changed) == (PAIR, 2, 1)
        assert found.outcomes == {"too_slow": 2, "started": 1}
        assert (found.dice, found.nqm, found.predicted_dice) == pytest.approx((0.9, 0.01, 0.0))
        assert found.slowdown == pytest.approx(1.75)

    def test_nothing_is_said_of_what_never_came_to_a_mask(self, shadows: Shadows, done: Done) -> None:
        job_id = done()
        assert shadows.begin(PAIR, 1.0) is not None
        shadows.failed(job_id, PAIR, "version_corrupt")
        found = shadows.compare(PAIR)
        assert (found.jobs, found.dice, found.outcomes) == (0, None, {"version_corrupt": 1})

    def test_a_model_that_was_never_tried_has_no_pair(self, shadows: Shadows) -> None:
        assert shadows.pairs() == shadows.pairs("tiny") == []


class TestErase:
    def test_takes_the_row_with_it(
        self, shadows: Shadows, done: Done, repository: JobRepository, engine: Engine
    ) -> None:
        job_id = done()
        assert shadows.begin(PAIR, 1.0) is not None
        assert repository.erase(job_id)
        shadows.compared(job_id, PAIR, SAME)  # a run under way meanwhile leaves nothing
        with engine.connect() as connection:
            assert connection.scalar(select(func.count()).select_from(Shadow)) == 0
