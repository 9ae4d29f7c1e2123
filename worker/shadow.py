"""Trying a candidate version on jobs that are done, while nothing else is to be done."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from sqlalchemy.exc import SQLAlchemyError

from imaging.nifti import read_nifti
from jobs.models import Job
from jobs.shadow import Finding, Pair, Shadows
from model_store.errors import ModelStoreError
from model_store.registry import CANDIDATE, Registry, open_registry
from nca.errors import CancelledError
from nca.quality import dice
from worker.pipeline import OutputNames, segment_scan
from worker.presence import Presence
from worker.record import Origin, Record
from worker.ticking import Ticking

if TYPE_CHECKING:
    from worker.run import Runner

ROUND_S = 60.0
"""How long a worker goes on to the next shadow run before it asks for a message again."""
QUIET_S = 0.5
"""How long no job may have come before a run begins: a client that sends one after the other is not kept waiting."""
POLL_S = 0.1
"""How often it looks whether a job waits."""
SLOWER_MAX, SLOWER_S = 10.0, 60.0
"""A candidate that takes so many times as long as the other version, and so many seconds more, is stopped."""
TOO_SLOW, BROKE = "too_slow", "internal_error"
"""Outcomes of runs without a mask, beside the codes of what was raised."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ShadowRunner:
    """Runs candidates for one worker process. Whatever happens here, no job hears of it.

    ``stopping`` says whether the worker was told to stop.
    """

    runner: Runner
    stopping: Callable[[], bool]

    def run_idle(self, model: str) -> None:
        """Try the model's candidate on the share of its jobs, until one waits, none is left, or the worker stops."""
        try:
            self._run(model)
        except ModelStoreError as error:
            log.warning("no shadow run of %s: %s", model, error.code)
        except Exception:  # a job is done, and this must not undo it
            log.exception("no shadow run of %s", model)

    def _run(self, model: str) -> None:
        settings = self.runner.settings
        pair = _pair(open_registry(settings), model) if settings.shadow_share > 0 else None
        if pair is None:
            return
        shadows, until = Shadows(self.runner.repository.engine), time.monotonic() + ROUND_S
        while self._quiet() and time.monotonic() < until:
            job = shadows.begin(pair, settings.shadow_share)
            if job is None:
                return
            self._try(job, pair, shadows)

    def _wanted(self) -> bool:
        """Whether something else is to be done."""
        return self.stopping() or self.runner.repository.queued() > 0

    def _quiet(self) -> bool:
        """Whether nothing else is to be done for a while."""
        until = time.monotonic() + QUIET_S
        while not (wanted := self._wanted()) and time.monotonic() < until:
            time.sleep(POLL_S)
        return not wanted

    def _try(self, job: Job, pair: Pair, shadows: Shadows) -> None:
        patience = _Patience(job, self._wanted, self.runner.presence)
        try:
            with patience:
                finding = self._compare(job, pair, patience)
        except CancelledError:
            if patience.over:
                shadows.failed(job.id, pair, TOO_SLOW)
            else:
                shadows.forget(job.id, pair)
            return
        except Exception as error:
            code = getattr(error, "code", BROKE)
            shadows.failed(job.id, pair, code)
            log.warning("job %s: the candidate %s has no mask (%s)", job.id, pair.candidate, code)
            return
        shadows.compared(job.id, pair, finding)
        log.info("job %s: the candidate %s agrees to Dice %.3f", job.id, pair.candidate, finding.dice)

    def _compare(self, job: Job, pair: Pair, patience: _Patience) -> Finding:
        runner = self.runner
        with (
            runner.blobs.staging() as workdir,
            runner.blobs.staging() as out,
            runner.blobs.inputs(job.id) as scans,
        ):
            outcome = segment_scan(
                scans,
                runner.load(pair.model, pair.candidate),
                engine=runner.engine(runner.threads()),
                options=runner.options(job.request),
                origin=Origin(job.id, datetime.fromtimestamp(job.created_at, UTC)),
                limits=runner.limits,
                out=out,
                workdir=workdir,
                on_stage=patience.report,
            )
            name = OutputNames().mask
            with runner.blobs.results(job.id, job.attempt, [name]) as (own,):
                agreement = self._agreement(own, out / name)
            return _finding(job, outcome.record, agreement=agreement)

    def _agreement(self, own: Path, other: Path) -> float:
        """The lowest Dice of a label between two masks."""
        one, two = (read_nifti(file, limits=self.runner.limits).array for file in (own, other))
        labels = set(np.unique(one).tolist()) | set(np.unique(two).tolist())
        return min((dice(one == label, two == label) for label in labels if label), default=1.0)


class _Patience(Ticking):
    """Stops a shadow run where something else is wanted, or where it takes far longer than the job did.

    A thread of its own looks, and shows meanwhile that the worker works, while the ``with`` block runs.
    """

    def __init__(self, job: Job, wanted: Callable[[], bool], presence: Presence) -> None:
        super().__init__(f"shadow-{job.id[:8]}", seconds=POLL_S)
        taken = float((job.result or {}).get("seconds", 0.0))
        self._wanted, self._presence = wanted, presence
        self._end = time.monotonic() + SLOWER_MAX * taken + SLOWER_S
        self._given_way = threading.Event()

    @property
    def over(self) -> bool:
        """Whether the candidate has had its time, and nothing else ended the run before."""
        return not self._given_way.is_set() and time.monotonic() > self._end

    def report(self, stage: str, progress: float) -> None:
        """The pipeline's callback."""
        if self._given_way.is_set():
            raise CancelledError("a job waits, or the worker stops")
        if self.over:
            raise CancelledError("the candidate takes too long")

    def tick(self) -> bool:
        """Look whether something else is wanted."""
        self._presence.show()
        with suppress(SQLAlchemyError):  # the run goes on through a short outage of the database
            if self._wanted():
                self._given_way.set()
        return not self._given_way.is_set()


def _pair(registry: Registry, model: str) -> Pair | None:
    """The model's production version and its candidate; None where it has none, or both are one."""
    candidate = registry.aliases(model).get(CANDIDATE)
    if candidate is None:
        return None
    version = registry.resolve(model).version
    return None if version == candidate else Pair(model, version, candidate)


def _finding(job: Job, record: Record, *, agreement: float) -> Finding:
    answered = job.result or {}
    return Finding(
        dice=agreement,
        nqm=_difference(record.nqm, answered.get("nqm")),
        predicted_dice=_difference(record.predicted_dice, answered.get("predicted_dice")),
        verdict_changed=record.verdict != answered.get("verdict"),
        seconds=float(answered.get("seconds", 0.0)),
        candidate_seconds=record.seconds,
    )


def _difference(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other
