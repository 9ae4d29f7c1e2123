"""What the routes share: rows, files, models and the broker of one deployment."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from typing import Annotated, cast

from celery import Celery
from fastapi import Depends
from starlette.requests import Request

from jobs.archive import DeliveryRepository, ObjectRepository
from jobs.blobs import Blobs
from jobs.database import open_database
from jobs.models import Job
from jobs.queue import enqueue, make_celery
from jobs.reconcile import Reconciled, deliver, reconcile
from jobs.repository import JobRepository
from model_store.registry import Registry
from ncagate.settings import Settings
from pacs.collect import Collection, open_collection
from pacs.config import load_pacs
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
    celery: Celery
    metrics: Metrics
    collection: Collection
    objects: ObjectRepository
    deliveries: DeliveryRepository

    @classmethod
    def open(cls, settings: Settings) -> Gateway:
        """Everything, by the settings; nothing connects before it is used."""
        repository = JobRepository(open_database(settings.database))
        registry = Registry(settings.models)
        return cls(
            settings=settings,
            repository=repository,
            blobs=Blobs(settings.blobs),
            registry=registry,
            celery=make_celery(settings),
            metrics=Metrics(repository, registry),
            collection=open_collection(settings, config=load_pacs(settings.pacs), jobs=repository, registry=registry),
            objects=ObjectRepository(repository.engine),
            deliveries=DeliveryRepository(repository.engine),
        )

    def send(self, job_id: str) -> bool:
        """Hand an accepted job to the broker. Never raises: what fails here, the reconciler does."""
        try:
            return deliver(self.repository, partial(enqueue, self.celery), job_id)
        except Exception:
            log.exception("job %s stays in the outbox", job_id)
            return False

    def reconcile(self) -> Reconciled:
        """Make jobs of what archives have sent, then one round of `jobs.reconcile.reconcile`."""
        self.collection.submit_complete(self.send)
        return reconcile(
            self.repository,
            partial(enqueue, self.celery),
            attempts_max=self.settings.attempts_max,
            resend_after_s=self.settings.resend_after_s,
            lease_s=self.settings.lease_s,
        )

    def sweep(self) -> int:
        """Remove files that no row and no living process owns, and series that came long ago."""
        self.collection.sweep()
        return self.blobs.sweep(lambda job_id: self.repository.get(job_id) is not None)

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
        self.celery.close()


def _of(request: Request) -> Gateway:
    return cast(Gateway, request.app.state.gateway)


TheGateway = Annotated[Gateway, Depends(_of)]
"""A route's parameter of this type is this app's gateway."""
