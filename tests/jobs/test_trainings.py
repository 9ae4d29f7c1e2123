from __future__ import annotations

from uuid import uuid4

import pytest
from sqlalchemy import Engine

from jobs.audit import AuditLog
from jobs.clients import Client, Scope
from jobs.errors import ATTEMPTS_EXHAUSTED
from jobs.models import Training
from jobs.state import JobState
from jobs.trainings import Figures, Trainings
from tests.jobs.conftest import Clock

IT = Client("it", frozenset({Scope.ADMIN}), "key 1")
LEASE_S = 60.0


@pytest.fixture
def trainings(engine: Engine, clock: Clock) -> Trainings:
    return Trainings(engine, clock=clock)


@pytest.fixture
def claimed(trainings: Trainings) -> Training:
    """A running training."""
    add(trainings)
    training = trainings.claim_next(LEASE_S)
    assert training is not None
    return training


def add(trainings: Trainings) -> str:
    return trainings.create(uuid4().hex, dataset="liver", config="seed = 1", client=IT).id


def now(trainings: Trainings, training_id: str) -> Training:
    training = trainings.get(training_id)
    assert training is not None
    return training


class TestClaim:
    def test_the_one_that_has_waited_longest_is_taken_once(self, trainings: Trainings, clock: Clock) -> None:
        first = add(trainings)
        clock.now += 1
        second = add(trainings)
        assert trainings.queued() == 2
        taken = [trainings.claim_next(LEASE_S) for _ in range(3)]
        assert [one and (one.id, one.state, one.attempt) for one in taken] == [
            (first, JobState.RUNNING, 1), (second, JobState.RUNNING, 1), None
        ]  # fmt: skip

    def test_the_list_has_the_newest_first(self, trainings: Trainings, clock: Clock) -> None:
        first = add(trainings)
        clock.now += 1
        second = add(trainings)
        assert [one.id for one in trainings.list(5)] == [second, first]
        assert [one.id for one in trainings.list(1)] == [second]


class TestLease:
    def test_a_heartbeat_extends_it_and_tells_figures(
        self, trainings: Trainings, claimed: Training, clock: Clock
    ) -> None:
        clock.now += LEASE_S - 1
        figures = Figures("fold 1 of 3", iteration=30, iterations=300, loss=0.5, dice=0.7, eta_s=12.0)
        assert trainings.heartbeat(claimed.id, 1, figures, lease_s=LEASE_S)
        clock.now += LEASE_S - 1
        assert trainings.take_back_expired(3).requeued == ()
        training = now(trainings, claimed.id)
        assert (training.progress, training.loss, training.stage) == (0.1, 0.5, "fold 1 of 3")

    def test_a_silent_trainer_loses_it_and_can_end_it_no_more(
        self, trainings: Trainings, claimed: Training, clock: Clock
    ) -> None:
        clock.now += LEASE_S + 1
        assert trainings.take_back_expired(3).requeued == (claimed.id,)
        again = trainings.claim_next(LEASE_S)
        assert again is not None
        assert again.attempt == 2
        assert not trainings.heartbeat(claimed.id, 1, Figures(), lease_s=LEASE_S)
        assert not trainings.succeed(claimed, model="liver", version="1")
        assert not trainings.fail(claimed, "x", "y")
        assert not trainings.hand_back(claimed)
        assert trainings.succeed(again, model="liver", version="2")
        assert now(trainings, claimed.id).version == "2"

    def test_after_the_last_attempt_it_fails(self, trainings: Trainings, claimed: Training, clock: Clock) -> None:
        clock.now += LEASE_S + 1
        assert trainings.take_back_expired(1).exhausted == (claimed.id,)
        training = now(trainings, claimed.id)
        assert (training.state, training.error_code) == (JobState.FAILED, ATTEMPTS_EXHAUSTED)

    def test_what_is_handed_back_waits_again(self, trainings: Trainings, claimed: Training) -> None:
        assert trainings.hand_back(claimed)
        assert now(trainings, claimed.id).state is JobState.QUEUED


class TestEnd:
    def test_a_cancel_ends_a_queued_one_at_once_and_stops_a_running_one(
        self, trainings: Trainings, claimed: Training
    ) -> None:
        waits = add(trainings)
        assert trainings.request_cancel(waits, IT)
        assert now(trainings, waits).state is JobState.CANCELLED
        assert trainings.request_cancel(claimed.id, IT)
        assert now(trainings, claimed.id).state is JobState.RUNNING
        assert not trainings.heartbeat(claimed.id, 1, Figures(), lease_s=LEASE_S)
        assert trainings.cancelled(claimed)
        assert not trainings.request_cancel(claimed.id, IT)

    def test_a_cancelled_one_that_is_handed_back_is_over(self, trainings: Trainings, claimed: Training) -> None:
        trainings.request_cancel(claimed.id, IT)
        assert trainings.hand_back(claimed)
        assert now(trainings, claimed.id).state is JobState.CANCELLED

    def test_only_a_finished_one_can_be_erased(self, trainings: Trainings, claimed: Training) -> None:
        assert not trainings.erase(claimed.id, IT)
        trainings.fail(claimed, "diverged", "the loss is nan")
        assert trainings.erase(claimed.id, IT)
        assert trainings.get(claimed.id) is None

    def test_the_audit_log_tells_of_each_deed(self, trainings: Trainings, claimed: Training, engine: Engine) -> None:
        trainings.succeed(claimed, model="liver", version="7")
        trainings.erase(claimed.id, IT)
        entries = [(one.client, one.action, one.subject) for one in AuditLog(engine).list()]
        subject = f"training {claimed.id}"
        assert entries == [
            ("it", "submitted", subject), ("it", "published", f"liver 7, by {subject}"), ("it", "erased", subject)
        ]  # fmt: skip
