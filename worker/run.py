"""Jobs, one after another: claim each, run the pipeline, end it exactly once."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, cached_property, lru_cache, partial
from pathlib import Path

from imaging.errors import ImagingError
from imaging.limits import Limits
from imaging.request import Request
from imaging.roi import Roi
from imaging.sandbox import read_in_sandbox
from imaging.volume import Volume
from jobs.blobs import SCAN_FILE, Blobs
from jobs.database import open_database
from jobs.errors import INTERNAL_ERROR, JobGoneError
from jobs.models import Job, JobRequest
from jobs.objects import open_blobs
from jobs.origin import bound_to, identifiers
from jobs.repository import JobRepository
from jobs.state import JobState
from jobs.tally import Cause
from jobs.workers import WorkerRepository, canary_s
from model_store.errors import ModelStoreError
from model_store.loaded import LoadedVersion, load_version
from model_store.registry import open_registry
from nca.engine import Engine, get_engine
from nca.errors import CancelledError, NcaError
from nca.gate import Policy
from ncagate import tracing
from ncagate.bucket import StorageUnavailableError
from ncagate.capacity import threads_for_one, worker_processes
from ncagate.nodes import worker_name
from ncagate.settings import Settings
from worker.batch import BATCH_MAX, SMALL_BYTES, Ahead, Claimed
from worker.heart import Heart
from worker.pipeline import Options, StageCallback, scan_request, segment_scan
from worker.presence import Presence
from worker.record import Origin
from worker.shadow import ShadowRunner

VERSIONS_KEPT = 8
"""Loaded versions held in memory; each is about 100 kB."""

PATIENCE_S = 60.0
"""How long a finished result waits for a store that does not answer, before the job is handed back."""
PAUSE_S = 1.0
QUEUED = {"state": JobState.QUEUED.value}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Runner:
    """Runs jobs in one process of the worker ``node``; what is costly is made on first use and kept.

    ``stopping`` says whether the worker was told to stop: nothing that can wait is begun then.
    """

    settings: Settings
    node: str = field(default_factory=lambda: worker_name(os.getpid()))
    stopping: Callable[[], bool] = lambda: False
    _under_way: list[Claimed] = field(default_factory=list)

    @cached_property
    def repository(self) -> JobRepository:
        """The job rows."""
        return JobRepository(open_database(self.settings.database))

    @cached_property
    def presence(self) -> Presence:
        """How others know that this worker works."""
        return Presence(WorkerRepository(self.repository.engine), self.node, every_s=canary_s(self.settings))

    @cached_property
    def blobs(self) -> Blobs:
        """The jobs' files."""
        return open_blobs(self.settings)

    @cached_property
    def engine(self) -> Callable[[int], Engine]:
        """The inference engine, on so many threads."""
        settings = self.settings
        return cache(lambda threads: get_engine(settings.engine, threads=threads, memory_budget=settings.memory_budget))

    def warm_up(self) -> None:
        """Make the engine, so that the first job need not wait for it."""
        self.engine(self.threads())

    @cached_property
    def limits(self) -> Limits:
        """The budgets of reading."""
        return Limits(
            unpacked_bytes=self.settings.unpacked_bytes_max,
            files=self.settings.files_max,
            voxels=self.settings.voxels_max,
            memory=self.settings.read_bytes_max,
            seconds=self.settings.read_seconds_max,
        )

    @cached_property
    def load(self) -> Callable[[str, str], LoadedVersion]:
        """Load a version by name; versions never change, so a loaded one is good for ever."""
        registry = open_registry(self.settings)
        return lru_cache(maxsize=VERSIONS_KEPT)(lambda name, version: load_version(registry, name, version))

    @staticmethod
    def options(request: JobRequest) -> Options:
        """What a request chooses."""
        return Options(
            policy=Policy(request.min_dice, request.alpha, request.rule),
            members=request.members,
            seed=request.seed,
            series_uid=request.series_uid,
            roi=None if request.roi is None else Roi.parse(request.roi),
        )

    def run_next(self) -> None:
        """Work on the job whose turn it is, if any is queued, and on small ones right behind it (`worker.batch`).

        Then, where none is queued, on the shadow of its model's. Nothing is taken where there is nowhere to read and
        write.
        """
        try:
            self.blobs.ping()
        except StorageUnavailableError as error:  # no attempt is spent on it; the reconciler wakes again
            log.warning("woken, and took no job: %s", error)
            return
        job = self.repository.claim_next(self.settings.lease_s)
        if job is None:
            log.info("woken, and no job is queued")
            return
        try:
            with ThreadPoolExecutor(1, thread_name_prefix="ahead") as aside:
                self._run_batch(job, aside)
        finally:  # a heart that went on beating would keep a job that nobody works on
            for left in self._under_way:
                left.close()
            self._under_way.clear()
        ShadowRunner(self, self.stopping).run_idle(job.request.model)

    def _run_batch(self, first: Job, aside: Executor) -> None:
        current: Claimed | None = self._begin(first)
        for number in range(BATCH_MAX):
            if current is None:
                return
            ahead = Ahead(aside, partial(self._take_following, current.job))
            self._run(current, ahead.watch if self._leads(current.job) and number + 1 < BATCH_MAX else _nobody_follows)
            current = ahead.result()

    def _begin(self, job: Job) -> Claimed:
        started = job.started_at or job.queued_at
        tracing.past("queue", job.queued_at, started, parent=job.trace, job_id=job.id, attempt=job.attempt)
        with bound_to(job):
            log.info("job %s: attempt %d started", job.id, job.attempt, extra={"state": job.state.value})
        claimed = Claimed(job, Heart(self.repository, job, lease_s=self.settings.lease_s, presence=self.presence))
        self._under_way.append(claimed)
        return claimed

    def _leads(self, job: Job) -> bool:
        """Whether another may go with it: not where it may have ended a worker, nor where no attempt is to spare."""
        return job.attempt == 1 < self.settings.attempts_max and not self.stopping()

    def _take_following(self, leader: Job) -> Claimed | None:
        """Claim the next job, if it may go with this one, and read its scan; what that raises comes in its turn."""
        job = self.repository.claim_following(leader, self.settings.lease_s, self._is_small)
        if job is None:
            return None
        claimed = self._begin(job)
        try:
            volume = read_in_sandbox(self._request(claimed))
        except ImagingError as error:
            claimed.read = partial(_refuse, error)
        except Exception:  # it comes again where the job ends by it
            log.warning("job %s: its scan could not be read ahead", job.id)
        else:
            claimed.read = lambda request: volume
        return claimed

    def _is_small(self, job: Job) -> bool:
        with suppress(OSError, StorageUnavailableError):
            return self.blobs.input_bytes(job.id) <= SMALL_BYTES
        return False

    def _run(self, claimed: Claimed, watch: StageCallback) -> None:
        job = claimed.job
        try:
            with bound_to(job), tracing.span("job", parent=job.trace, kind="consumer", **identifiers(job)):
                self._work(claimed, watch)
        finally:
            claimed.close()
            self._under_way.remove(claimed)

    def _work(self, claimed: Claimed, watch: StageCallback) -> None:
        job = claimed.job
        try:
            self._attempt(claimed, watch)
        except CancelledError:
            if self.repository.cancelled(job.id, job.attempt):
                log.info("job %s: cancelled", job.id, extra={"state": JobState.CANCELLED.value})
        except (ImagingError, NcaError, ModelStoreError) as error:
            self._failed(job, error.code, str(error))
        except StorageUnavailableError as error:
            self._stranded(job, error)
        except JobGoneError:
            log.info("job %s: erased meanwhile", job.id)
        except Exception:  # whatever it was, the job must not be left without an end
            self._broke(job)

    def hand_back(self) -> None:
        """Queue the jobs under way again, for other workers: this process is about to end.

        One that has no attempt left keeps its lease, and ends when that runs out: it may be what ends the workers.
        """
        for job in [one.job for one in self._under_way]:
            if job.attempt < self.settings.attempts_max and self._again(job, Cause.WORKER_STOPPED):
                with bound_to(job):
                    log.warning("job %s: handed back, as the worker stops", job.id, extra=QUEUED)

    def threads(self) -> int:
        """A scan's share of the cores, by how many there are to do now; asked anew for every scan."""
        under_way = self.repository.under_way(worker_processes(self.settings))
        return threads_for_one(self.settings, under_way)

    def _request(self, claimed: Claimed) -> Request:
        """What `segment_scan` will ask of the reader."""
        job = claimed.job
        manifest = self.load(job.request.model, job.request.version).manifest
        files, workdir = claimed.inputs(self.blobs), claimed.workdir(self.blobs)
        return scan_request(files, manifest, options=self.options(job.request), limits=self.limits, workdir=workdir)

    def _attempt(self, claimed: Claimed, watch: StageCallback) -> None:
        job = claimed.job

        def report(stage: str, done: float) -> None:
            claimed.heart.report(stage, done)
            watch(stage, done)

        with self.blobs.staging() as out:
            outcome = segment_scan(
                claimed.inputs(self.blobs),
                self.load(job.request.model, job.request.version),
                engine=self.engine(self.threads()),
                options=self.options(job.request),
                origin=Origin(job.id, datetime.fromtimestamp(job.created_at, UTC)),
                limits=self.limits,
                out=out,
                workdir=claimed.workdir(self.blobs),
                scan_name=SCAN_FILE,
                on_stage=report,
                read=claimed.read,
            )
            self._commit(out, job, claimed.heart)
        claimed.close()  # its heart beats no more when it ends
        record = outcome.record
        if self.repository.succeed(job.id, job.attempt, record.to_json(), objects=outcome.objects):
            said = {"state": JobState.SUCCEEDED.value}
            log.info("job %s: %s in %.1f s", job.id, record.verdict, record.seconds, extra=said)
        else:
            self.blobs.withdraw_result(job.id, job.attempt)

    def _commit(self, out: Path, job: Job, heart: Heart) -> None:
        """Put the result where it belongs; a short outage does not throw the work away."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                self.blobs.commit_result(out, job.id, job.attempt)
                return
            except StorageUnavailableError:
                if time.monotonic() > deadline:
                    raise
            heart.report("write", 1.0)
            time.sleep(PAUSE_S)

    def _stranded(self, job: Job, error: StorageUnavailableError) -> None:
        """The store went away under the job, which is not its fault: it waits in the queue, however often that is."""
        log.warning("job %s: attempt %d could not go on: %s", job.id, job.attempt, error)
        self._queue_again(job, Cause.STORAGE_AWAY)

    def _broke(self, job: Job) -> None:
        """The program itself broke: try again, for it may be the machine, but not for ever."""
        log.exception("job %s: attempt %d broke", job.id, job.attempt)
        if job.attempt >= self.settings.attempts_max:
            detail = f"the service could not process this scan in {job.attempt} attempts"
            self._failed(job, INTERNAL_ERROR, detail)
        else:
            self._queue_again(job, Cause.BROKE)

    def _failed(self, job: Job, code: str, detail: str) -> None:
        if self.repository.fail(job.id, job.attempt, code, detail):
            log.info("job %s: failed with %s", job.id, code, extra={"state": JobState.FAILED.value, "code": code})

    def _queue_again(self, job: Job, cause: Cause) -> None:
        if self._again(job, cause):
            log.info("job %s: queued again", job.id, extra=QUEUED)

    def _again(self, job: Job, cause: Cause) -> bool:
        return self.repository.hand_back(job.id, job.attempt, cause=cause)


def _refuse(error: ImagingError, request: Request) -> Volume:
    raise error


def _nobody_follows(stage: str, done: float) -> None:
    """In place of `Ahead.watch`."""
