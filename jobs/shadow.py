"""Shadow runs: what a candidate version made of jobs that the production version has answered."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np
from sqlalchemy import ColumnElement, Engine, and_, delete, exists, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from jobs.database import writing
from jobs.models import Job, Shadow
from jobs.state import JobState

STARTED, COMPARED = "started", "compared"
BACKLOG = 50
"""Of a version's jobs only the last so many are still tried a candidate on."""
ROWS_MAX = 1000
"""A comparison is made of the last so many runs."""
_BITS = 64


@dataclass(frozen=True)
class Pair:
    """A model's version and the candidate in its shadow."""

    model: str
    version: str
    candidate: str


@dataclass(frozen=True)
class Finding:
    """How the candidate differed on one job (`jobs.models.Shadow`); None where a figure is undefined for either."""

    dice: float
    nqm: float | None
    predicted_dice: float | None
    verdict_changed: bool
    seconds: float
    candidate_seconds: float


@dataclass(frozen=True)
class Comparison:
    """All that is known of a pair.

    Attributes:
        jobs: on which both have a mask.
        outcomes: how many runs came to another end, by code; `STARTED` are those whose worker was stopped, or died.
        dice, dice_low: mean and 5 % quantile of the agreement.
        nqm, predicted_dice: mean of the candidate's less the version's.
        verdicts_changed: jobs.
        slowdown: median of the candidate's time over the version's.
    """

    pair: Pair
    jobs: int
    outcomes: Mapping[str, int]
    dice: float | None = None
    dice_low: float | None = None
    nqm: float | None = None
    predicted_dice: float | None = None
    verdicts_changed: int = 0
    slowdown: float | None = None


def chosen(job_id: str, share: float) -> bool:
    """Whether a job is one of this share of all: by its identifier alone, so every worker says the same."""
    number = int.from_bytes(hashlib.sha256(job_id.encode()).digest()[: _BITS // 8], "big")
    return bool(number / 2**_BITS < share)


class Shadows:
    """The rows of the shadow runs; no job's row is ever written. ``clock`` gives seconds since the epoch."""

    def __init__(self, engine: Engine, *, clock: Callable[[], float] = time.time) -> None:
        self._engine, self._writer, self._clock = engine, writing(engine), clock

    def begin(self, pair: Pair, share: float) -> Job | None:
        """The newest of the version's last jobs that the candidate has not been tried on, now begun; None without one.

        Of several workers that ask at once, each gets another one.
        """
        tried = exists().where(Shadow.job_id == Job.id, Shadow.candidate == pair.candidate)
        own = and_(Job.model == pair.model, Job.version == pair.version, Job.state == JobState.SUCCEEDED)
        last = select(Job.id).where(own).order_by(Job.finished_at.desc()).limit(BACKLOG)
        waiting = select(Job).where(Job.id.in_(last), ~tried).order_by(Job.finished_at.desc())
        with Session(self._engine, expire_on_commit=False) as session:
            jobs = [job for job in session.scalars(waiting) if chosen(job.id, share)]
        return next((job for job in jobs if self._begun(job.id, pair)), None)

    def _begun(self, job_id: str, pair: Pair) -> bool:
        row = {"job_id": job_id, **asdict(pair), "started_at": self._clock(), "outcome": STARTED}
        try:
            with self._writer.begin() as connection:
                connection.execute(insert(Shadow), [row])
        except IntegrityError:  # another worker has begun it, or the job was erased
            return False
        return True

    def compared(self, job_id: str, pair: Pair, finding: Finding) -> None:
        """Both masks are there."""
        self._end(job_id, pair, {"outcome": COMPARED, **asdict(finding)})

    def failed(self, job_id: str, pair: Pair, code: str) -> None:
        """The candidate gave no mask; a stable code says why."""
        self._end(job_id, pair, {"outcome": code})

    def forget(self, job_id: str, pair: Pair) -> None:
        """It was interrupted, and may be tried again."""
        with self._writer.begin() as connection:
            connection.execute(delete(Shadow).where(*_of(job_id, pair)))

    def _end(self, job_id: str, pair: Pair, values: Mapping[str, object]) -> None:
        with self._writer.begin() as connection:
            connection.execute(update(Shadow).where(*_of(job_id, pair)).values(**values))

    def pairs(self, model: str | None = None) -> list[Pair]:
        """All that have a row, of one model or of all; the one that was begun last comes first."""
        columns = (Shadow.model, Shadow.version, Shadow.candidate)
        query = select(*columns).group_by(*columns).order_by(func.max(Shadow.started_at).desc())
        if model is not None:
            query = query.where(Shadow.model == model)
        with self._engine.connect() as connection:
            return [Pair(*row) for row in connection.execute(query)]

    def compare(self, pair: Pair) -> Comparison:
        """What the last runs say."""
        query = select(Shadow).where(*(getattr(Shadow, name) == value for name, value in asdict(pair).items()))
        with Session(self._engine) as session:
            rows = session.scalars(query.order_by(Shadow.started_at.desc()).limit(ROWS_MAX)).all()
        return _comparison(pair, rows)


def _comparison(pair: Pair, rows: Sequence[Shadow]) -> Comparison:
    known = [row for row in rows if row.outcome == COMPARED]
    others = Counter(row.outcome for row in rows if row.outcome != COMPARED)
    if not known:
        return Comparison(pair, 0, others)
    columns = {one.name: _known([getattr(row, one.name) for row in known]) for one in fields(Finding)}
    agreement = columns["dice"]
    slowdown = columns["candidate_seconds"] / np.maximum(columns["seconds"], 1e-9)
    return Comparison(
        pair,
        len(known),
        others,
        dice=float(agreement.mean()),
        dice_low=float(np.quantile(agreement, 0.05)),
        nqm=_mean(columns["nqm"]),
        predicted_dice=_mean(columns["predicted_dice"]),
        verdicts_changed=int(columns["verdict_changed"].sum()),
        slowdown=float(np.median(slowdown)),
    )


def _known(values: Sequence[float | None]) -> np.ndarray:
    return np.array([value for value in values if value is not None], dtype=np.float64)


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def _of(job_id: str, pair: Pair) -> tuple[ColumnElement[bool], ...]:
    return (Shadow.job_id == job_id, Shadow.candidate == pair.candidate)
