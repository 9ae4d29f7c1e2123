"""One job: claim it, run the pipeline, end it exactly once."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property, lru_cache

from imaging.errors import ImagingError
from imaging.limits import Limits
from imaging.roi import Roi
from jobs.blobs import SCAN_FILE, Blobs
from jobs.database import open_database
from jobs.errors import INTERNAL_ERROR, JobGoneError
from jobs.models import Job
from jobs.repository import JobRepository
from jobs.tally import Cause
from jobs.workers import WorkerRepository, canary_s
from model_store.errors import ModelStoreError
from model_store.loaded import LoadedVersion, load_version
from model_store.registry import Registry
from nca.engine import Engine, get_engine
from nca.errors import CancelledError, NcaError
from nca.gate import Policy
from ncagate.nodes import worker_name
from ncagate.settings import Settings
from worker.heart import Heart
from worker.pipeline import Options, segment_scan
from worker.presence import Presence
from worker.record import Origin

VERSIONS_KEPT = 8
"""Loaded versions held in memory; each is about 100 kB."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Runner:
    """Runs jobs in one process of the worker ``node``; what is costly is made on first use and kept."""

    settings: Settings
    node: str = field(default_factory=lambda: worker_name(os.getpid()))
    _under_way: list[Job] = field(default_factory=list)

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
        return Blobs(self.settings.blobs)

    @cached_property
    def engine(self) -> Engine:
        """The inference engine, on this process's share of the cores."""
        threads = self.settings.threads or max(1, (os.cpu_count() or 1) // self.settings.workers)
        return get_engine(self.settings.engine, threads=threads, memory_budget=self.settings.memory_budget)

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
        registry = Registry(self.settings.models)
        return lru_cache(maxsize=VERSIONS_KEPT)(lambda name, version: load_version(registry, name, version))

    def run_next(self) -> None:
        """Work on the job whose turn it is, if any is queued."""
        job = self.repository.claim_next(self.settings.lease_s)
        if job is None:
            log.info("woken, and no job is queued")
            return
        log.info("job %s: attempt %d started", job.id, job.attempt)
        self._under_way.append(job)
        try:
            self._attempt(job)
        except CancelledError:
            self.repository.cancelled(job.id, job.attempt)
            log.info("job %s: cancelled", job.id)
        except (ImagingError, NcaError, ModelStoreError) as error:
            self.repository.fail(job.id, job.attempt, error.code, str(error))
            log.info("job %s: failed with %s", job.id, error.code)
        except JobGoneError:
            log.info("job %s: erased meanwhile", job.id)
        except Exception:  # whatever it was, the job must not be left without an end
            self._broke(job)
        finally:
            self._under_way.remove(job)

    def hand_back(self) -> None:
        """Queue the job under way again, for another worker: this process is about to end.

        One that has no attempt left keeps its lease, and ends when that runs out: it may be what ends the workers.
        """
        for job in self._under_way:
            if job.attempt < self.settings.attempts_max and self._again(job, Cause.WORKER_STOPPED):
                log.warning("job %s: handed back, as the worker stops", job.id)

    def _attempt(self, job: Job) -> None:
        request = job.request
        with (
            Heart(self.repository, job, lease_s=self.settings.lease_s, presence=self.presence) as heart,
            self.blobs.staging() as workdir,
            self.blobs.staging() as out,
        ):
            outcome = segment_scan(
                self.blobs.input_files(job.id),
                self.load(request.model, request.version),
                engine=self.engine,
                options=Options(
                    policy=Policy(request.min_dice, request.alpha, request.rule),
                    members=request.members,
                    seed=request.seed,
                    series_uid=request.series_uid,
                    roi=None if request.roi is None else Roi.parse(request.roi),
                ),
                origin=Origin(job.id, datetime.fromtimestamp(job.created_at, UTC)),
                limits=self.limits,
                out=out,
                workdir=workdir,
                scan_name=SCAN_FILE,
                on_stage=heart.report,
            )
            self.blobs.commit_result(out, job.id, job.attempt)
        record = outcome.record
        if self.repository.succeed(job.id, job.attempt, record.to_json(), objects=outcome.objects):
            log.info("job %s: %s in %.1f s", job.id, record.verdict, record.seconds)

    def _broke(self, job: Job) -> None:
        """The program itself broke: try again, for it may be the machine, but not for ever."""
        log.exception("job %s: attempt %d broke", job.id, job.attempt)
        if job.attempt >= self.settings.attempts_max:
            detail = f"the service could not process this scan in {job.attempt} attempts"
            self.repository.fail(job.id, job.attempt, INTERNAL_ERROR, detail)
        else:
            self._again(job, Cause.BROKE)

    def _again(self, job: Job, cause: Cause) -> bool:
        return self.repository.hand_back(job.id, job.attempt, cause=cause)
