"""The rows of the trainings: accepted by a gateway, worked on by a trainer under a lease, as jobs are."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, Engine, case, delete, func, insert, select, update
from sqlalchemy.orm import Session

from jobs import leases
from jobs.audit import Action, note
from jobs.clients import Client
from jobs.database import writing
from jobs.leases import TakenBack
from jobs.models import Training
from jobs.state import TERMINAL, JobState

SUBJECT = "training {}"
"""What the audit log calls a training, by its identifier."""


@dataclass(frozen=True)
class Figures:
    """How far a training is; `Training` says what each means."""

    stage: str = ""
    iteration: int = 0
    iterations: int = 0
    loss: float | None = None
    dice: float | None = None
    validation_dice: float | None = None
    eta_s: float | None = None

    @property
    def progress(self) -> float:
        """Share of the iterations that is done, 0 to 1."""
        return self.iteration / self.iterations if self.iterations else 0.0


class Trainings:
    """Every change is one conditional UPDATE; thread-safe. ``clock`` gives seconds since the epoch."""

    def __init__(self, engine: Engine, *, clock: Callable[[], float] = time.time) -> None:
        self._engine, self._writer, self._clock = engine, writing(engine), clock

    # --- the clients' side

    def create(self, training_id: str, *, dataset: str, config: str, client: Client) -> Training:
        """A new training, queued."""
        now = self._clock()
        row = {
            "id": training_id, "client": client.name, "state": JobState.QUEUED, "created_at": now, "queued_at": now,
            "dataset": dataset, "config": config,
        }  # fmt: skip
        with Session(self._writer, expire_on_commit=False) as session, session.begin():
            training = session.scalars(insert(Training).returning(Training), [row]).one()
            note(session.connection(), client, Action.SUBMITTED, SUBJECT.format(training_id), now)
            return training

    def get(self, training_id: str) -> Training | None:
        """The training, or None."""
        with Session(self._engine) as session:
            return session.get(Training, training_id)

    def list(self, limit: int) -> Sequence[Training]:
        """The newest trainings, newest first."""
        query = select(Training).order_by(Training.created_at.desc(), Training.id).limit(limit)
        with Session(self._engine) as session:
            return session.scalars(query).all()

    def queued(self) -> int:
        """How many wait for a trainer."""
        query = select(func.count()).select_from(Training).where(Training.state == JobState.QUEUED)
        with self._engine.connect() as connection:
            return connection.scalar(query) or 0

    def request_cancel(self, training_id: str, client: Client) -> bool:
        """Cancel a queued one; have the trainer of a running one stop. False where it is finished, or not there."""
        now, waiting = self._clock(), Training.state == JobState.QUEUED
        change = update(Training).where(Training.id == training_id, Training.state.not_in(TERMINAL))
        values = {
            "cancel_requested": True,
            "state": case((waiting, JobState.CANCELLED), else_=Training.state),
            "finished_at": case((waiting, now), else_=None),
        }
        with self._writer.begin() as connection:
            changed = connection.execute(change.values(**values)).rowcount == 1
            if changed:
                note(connection, client, Action.CANCELLED, SUBJECT.format(training_id), now)
            return changed

    def erase(self, training_id: str, client: Client) -> bool:
        """Remove the row of a finished one; False where it is not finished, or not there."""
        change = delete(Training).where(Training.id == training_id, Training.state.in_(TERMINAL))
        with self._writer.begin() as connection:
            erased = connection.execute(change).rowcount == 1
            if erased:
                note(connection, client, Action.ERASED, SUBJECT.format(training_id), self._clock())
            return erased

    # --- the trainer's side

    def claim_next(self, lease_s: float) -> Training | None:
        """Take the training that has waited longest: it is running, one attempt more. None where none is queued."""
        oldest = (
            select(Training.id)
            .where(Training.state == JobState.QUEUED)
            .order_by(Training.created_at, Training.id)
            .limit(1)
        )
        while True:
            with self._engine.connect() as connection:
                training_id = connection.scalar(oldest)
            if training_id is None:
                return None
            change = leases.claim(Training, training_id, now=self._clock(), lease_s=lease_s)
            with Session(self._writer, expire_on_commit=False) as session, session.begin():
                training = session.scalars(change).one_or_none()
            if training is not None:  # else another trainer was faster
                return training

    def heartbeat(self, training_id: str, attempt: int, figures: Figures, *, lease_s: float) -> bool:
        """Extend the lease and tell the figures; False where the attempt must stop, as `Attempts.heartbeat`."""
        values = asdict(figures) | {"progress": figures.progress, "lease_until": self._clock() + lease_s}
        with self._writer.begin() as connection:
            return connection.execute(leases.beat(Training, training_id, attempt).values(**values)).rowcount == 1

    def succeed(self, claimed: Training, *, model: str, version: str) -> bool:
        """End it with what was published; False where it is no longer this attempt's."""
        done = {"state": JobState.SUCCEEDED, "progress": 1.0, "stage": "", "eta_s": 0.0}
        published = f"{model} {version}, by {SUBJECT.format(claimed.id)}"
        return self._end(claimed, done | {"model": model, "version": version}, (Action.PUBLISHED, published))

    def fail(self, claimed: Training, code: str, detail: str) -> bool:
        """End it with a stable code and a sentence; False where it is no longer this attempt's."""
        return self._end(claimed, {"state": JobState.FAILED, "error_code": code, "error_detail": detail})

    def cancelled(self, claimed: Training) -> bool:
        """End it because a client asked to; False where it is no longer this attempt's."""
        return self._end(claimed, {"state": JobState.CANCELLED})

    def hand_back(self, claimed: Training) -> bool:
        """Queue it again, as `Attempts.hand_back`; False where it is no longer this attempt's."""
        change = leases.hand_back(Training, claimed.id, claimed.attempt, now=self._clock())
        with self._writer.begin() as connection:
            return connection.scalar(change) is not None

    def take_back_expired(self, attempts_max: int, *, lease_s: float = math.inf) -> TakenBack:
        """`jobs.leases.take_back_expired` of the trainings."""
        with self._writer.begin() as connection:
            return leases.take_back_expired(connection, Training, attempts_max, now=self._clock(), lease_s=lease_s)

    def _end(self, claimed: Training, values: dict[str, Any], entry: tuple[Action, str] | None = None) -> bool:
        now = self._clock()
        change = leases.held(Training, claimed.id, claimed.attempt).values(finished_at=now, lease_until=None, **values)
        with self._writer.begin() as connection:
            ended = connection.execute(change).rowcount == 1
            if ended and entry is not None:
                _note(connection, claimed, entry, now)
            return ended


def _note(connection: Connection, claimed: Training, entry: tuple[Action, str], now: float) -> None:
    """In the name of the client whose training it is."""
    action, subject = entry
    note(connection, Client(claimed.client, frozenset(), "trainer"), action, subject, now)
