"""Two hands on one job: whoever comes first wins, and there is one end."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier
from typing import Any

from jobs.repository import JobRepository
from jobs.state import JobState

ROUNDS = 8


def together(*moves: Callable[[], Any]) -> list[Any]:
    """Results of all moves, started at the same moment in threads of their own."""
    gate = Barrier(len(moves))

    def move(one: Callable[[], Any]) -> Any:
        gate.wait()
        return one()

    with ThreadPoolExecutor(len(moves)) as pool:
        return [future.result() for future in [pool.submit(move, one) for one in moves]]


class TestRaces:
    def test_of_many_claimers_one_wins(self, repository: JobRepository, submit: Callable[[], str]) -> None:
        for _ in range(ROUNDS):
            job_id = submit()
            claims = together(*[partial(repository.claim, job_id, 60.0)] * 6)
            assert [claim.attempt for claim in claims if claim] == [1]

    def test_workers_that_are_woken_together_get_different_jobs(
        self, repository: JobRepository, submit: Callable[[], str]
    ) -> None:
        ids = {submit() for _ in range(6)}
        claims = together(*[partial(repository.claim_next, 60.0)] * 8)
        taken = [claim.id for claim in claims if claim]
        assert (len(taken), set(taken)) == (6, ids)

    def test_cancel_against_success_has_one_end(self, repository: JobRepository, submit: Callable[[], str]) -> None:
        for _ in range(ROUNDS):
            job_id = submit()
            repository.claim(job_id, 60.0)
            wins = together(
                partial(repository.succeed, job_id, 1, {"verdict": "accept"}),
                partial(repository.cancelled, job_id, 1),
                partial(repository.fail, job_id, 1, "x", "y"),
                partial(repository.request_cancel, job_id),
            )
            assert wins[:3].count(True) == 1
        assert sum(repository.totals().counters["jobs_total"].values()) == ROUNDS

    def test_claim_against_cancel_has_one_outcome(self, repository: JobRepository, submit: Callable[[], str]) -> None:
        for _ in range(ROUNDS):
            job_id = submit()
            claim, state = together(
                partial(repository.claim, job_id, 60.0),
                partial(repository.request_cancel, job_id),
            )
            assert (claim is None) == (state is JobState.CANCELLED)

    def test_reconcilers_take_a_job_back_once(
        self, repository: JobRepository, submit: Callable[[], str], clock: Any
    ) -> None:
        job_id = submit()
        repository.claim(job_id, 60.0)
        clock.now += 61.0
        taken = together(*[partial(repository.take_back_expired, 3)] * 4)
        assert [one.requeued for one in taken if one.requeued] == [(job_id,)]

    def test_totals_lose_no_count(self, repository: JobRepository, submit: Callable[[], str]) -> None:
        ids = [submit() for _ in range(12)]

        def work(mine: list[str]) -> None:
            for job_id in mine:
                repository.claim(job_id, 60.0)
                repository.succeed(job_id, 1, {"verdict": "flag", "model": "m", "stage_seconds": {"b": 1, "a": 1}})

        together(*[partial(work, ids[part::4]) for part in range(4)])
        totals = repository.totals()
        assert totals.counters["jobs_total"][("succeeded", "")] == 12.0
        assert totals.histograms["stage_duration_seconds"][("a",)].buckets[-1] == ("+Inf", 12.0)
