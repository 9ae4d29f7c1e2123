"""What the routes share: rows, files, models and the broker of one deployment."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Annotated, cast

from fastapi import Depends
from starlette.requests import Request

from jobs.archive import DeliveryRepository, ObjectRepository
from jobs.audit import Action, AuditLog
from jobs.blobs import Blobs
from jobs.clients import NOBODY, STRANGER, Client
from jobs.database import open_database
from jobs.drift import DriftMonitor
from jobs.errors import BrokerUnavailableError
from jobs.models import Job
from jobs.objects import open_blobs
from jobs.queue import SEGMENTING, TRAINING, Broker, Work, make_celery
from jobs.reconcile import Reconciled, reconcile
from jobs.repository import JobRepository
from jobs.reviews import ReviewRepository
from jobs.shadow import Shadows
from jobs.trainings import Trainings
from jobs.workers import WorkerRepository, canary_s, send_canaries
from model_store.registry import Registry, open_registry
from ncagate.bucket import StorageUnavailableError
from ncagate.settings import Settings
from pacs.collect import Collection, open_collection
from pacs.config import load_pacs
from pacs.retention import purge
from service.access.door import Door
from service.access.middleware import CLIENT
from service.errors import Problem
from service.metrics import Metrics

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Gateway:
    """The gateway's hands."""

    settings: Settings
    repository: JobRepository
    blobs: Blobs
    registry: Registry
    audit: AuditLog
    door: Door
    broker: Broker
    drift: DriftMonitor
    shadows: Shadows
    metrics: Metrics
    collection: Collection
    objects: ObjectRepository
    deliveries: DeliveryRepository
    reviews: ReviewRepository
    workers: WorkerRepository
    trainings: Trainings
    client: Client = NOBODY

    @classmethod
    def open(cls, settings: Settings) -> Gateway:
        """Everything, by the settings; nothing connects before it is used."""
        repository = JobRepository(open_database(settings.database))
        registry = open_registry(settings)
        return cls(
            settings=settings,
            repository=repository,
            blobs=open_blobs(settings),
            registry=registry,
            audit=AuditLog(repository.engine),
            door=Door(settings, repository.engine),
            broker=Broker(make_celery(settings)),
            drift=DriftMonitor.of(settings, repository.engine, registry),
            shadows=Shadows(repository.engine),
            metrics=Metrics(settings, repository, registry),
            collection=open_collection(settings, config=load_pacs(settings.pacs), jobs=repository, registry=registry),
            objects=ObjectRepository(repository.engine),
            deliveries=DeliveryRepository(repository.engine),
            reviews=ReviewRepository(repository.engine),
            workers=WorkerRepository(repository.engine),
            trainings=Trainings(repository.engine),
        )

    def seen_by(self, client: Client) -> Gateway:
        """This gateway as a client sees it: what is another client's does not exist."""
        return replace(
            self,
            client=client,
            repository=self.repository.seen_by(client),
            objects=self.objects.seen_by(client),
            collection=self.collection.seen_by(client),
            reviews=self.reviews.seen_by(client),
        )

    def note(self, action: Action, subject: str) -> None:
        """Write into the audit log what the client does."""
        self.audit.add(self.client, action, subject)

    def wake(self, work: Work = SEGMENTING) -> None:
        """Tell a worker of accepted work. Never raises: what fails here, the reconciler does."""
        try:
            self.broker.wake(work)
        except BrokerUnavailableError:
            log.warning("no worker was woken: the broker does not answer")
        except Exception:
            log.exception("no worker was woken")

    def reconcile(self) -> Reconciled:
        """Make jobs of what archives have sent, then one round of `jobs.reconcile.reconcile` for each kind of work, and
        of canaries."""
        self.collection.submit_complete(lambda job_id: self.wake())
        most, lease_s = self.settings.attempts_max, self.settings.lease_s
        reconcile(self.trainings, self.broker, attempts_max=most, lease_s=lease_s, work=TRAINING)
        done = reconcile(self.repository, self.broker, attempts_max=most, lease_s=lease_s)
        send_canaries(self.workers, self.broker, every_s=canary_s(self.settings))
        return done

    def sweep(self) -> int:
        """Remove what is kept no longer: jobs and series whose time is over, files that nobody owns."""
        try:
            purge(self.collection, keep_days=self.settings.keep_days)
            self.collection.sweep()
            return self.blobs.sweep(lambda job_id: self.repository.get(job_id) is not None)
        except StorageUnavailableError as error:
            log.warning("what is kept no longer stays until the next round: %s", error)
            return 0

    def job(self, job_id: str) -> Job:
        """The job.

        Raises:
            Problem: ``job_not_found``.
        """
        job = self.repository.get(job_id)
        if job is None:
            raise Problem("job_not_found")
        return job

    def close(self) -> None:
        """Let go of every connection."""
        self.repository.close()
        self.broker.close()


def _of(request: Request) -> Gateway:
    gateway = cast(Gateway, request.app.state.gateway)
    return gateway.seen_by(request.scope.get(CLIENT, STRANGER))


TheGateway = Annotated[Gateway, Depends(_of)]
"""A route's parameter of this type is this app's gateway, as the request's client sees it."""
