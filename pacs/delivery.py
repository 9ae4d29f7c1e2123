"""`ncagate deliver`: results on their way to the archives that asked for them, and word of jobs' ends to webhooks.

One thread an archive, so that a dead one keeps nobody else waiting. What is sent has the same identifiers and bytes at
every attempt, so an archive that took it without our learning of it holds it once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError

from jobs.archive import DeliveryRepository, ObjectRepository
from jobs.database import open_database
from jobs.models import Delivery, Job
from jobs.objects import open_blobs
from jobs.origin import bound_to, identifiers
from jobs.state import DeliveryState
from ncagate import tracing
from ncagate.settings import Settings
from pacs.carriers import ArchiveCarrier, Carrier
from pacs.config import PacsConfig
from pacs.errors import DeliveryError, GoneError, RefusedError, WithheldError
from pacs.vault import Vault
from pacs.webhook import open_webhooks

POLL_S = 1.0
"""How often an idle thread looks for what is due."""
FIRST_PAUSE_S = 5.0
LONGEST_PAUSE_S = 600.0
"""The pause after a failed attempt doubles between these two."""
GIVE_UP_S = 7 * 86400.0
"""A result that an archive could not be given for so long stays here."""
REFUSALS_MAX = 5
"""An archive that answered and refused so often does not want it; attempts without an answer are no refusals."""
LEASE_MARGIN_S = 60.0
WEBHOOK_THREADS = 4
"""All webhooks are one destination: one that does not answer holds one of these, not the others' word."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Deliverer:
    """Sends what is due to one destination. ``clock`` gives seconds since the epoch."""

    carrier: Carrier
    deliveries: DeliveryRepository
    clock: Callable[[], float] = time.time

    def run(self, stop: threading.Event) -> None:
        """Send until ``stop`` is set."""
        while not stop.is_set():
            try:
                idle = not self.deliver_one()
            except SQLAlchemyError:
                log.exception("%s: the database does not answer", self.carrier.name)
                idle = True
            if idle:
                stop.wait(POLL_S)

    def deliver_one(self) -> bool:
        """Try a delivery that is due; False where none is."""
        claimed = self.deliveries.claim(self.carrier.name, self.carrier.timeout_s + LEASE_MARGIN_S)
        if claimed is None:
            return False
        job = self.deliveries.job(claimed)
        if job is None:  # erased meanwhile, and its deliveries with it
            return True
        with bound_to(job), tracing.span("deliver", parent=job.trace, kind="producer", **identifiers(job)):
            self._deliver(claimed, job)
        return True

    def _deliver(self, claimed: Delivery, job: Job) -> None:
        try:
            self.carrier.carry(job)
        except WithheldError as error:
            self.deliveries.settle(claimed, DeliveryState.WITHHELD, error=str(error))
            log.info("job %s: withheld from %s", job.id, self.carrier.name, extra=_said(DeliveryState.WITHHELD))
        except DeliveryError as error:
            self._failed(claimed, job, error)
        except Exception as error:  # whatever it was, the other deliveries go on
            log.exception("job %s: could not be delivered to %s", job.id, self.carrier.name)
            self._failed(claimed, job, DeliveryError(type(error).__name__))
        else:
            self.deliveries.settle(claimed, DeliveryState.DELIVERED)
            log.info("job %s: delivered to %s", job.id, self.carrier.name, extra=_said(DeliveryState.DELIVERED))

    def _failed(self, claimed: Delivery, job: Job, error: DeliveryError) -> None:
        refused = isinstance(error, RefusedError)
        given_up = isinstance(error, GoneError) or (refused and claimed.refusals + 1 >= REFUSALS_MAX)
        if given_up or self.clock() - (job.finished_at or 0.0) > GIVE_UP_S:
            said = _said(DeliveryState.FAILED)
            log.error("job %s: given up delivering to %s: %s", job.id, self.carrier.name, error, extra=said)
            self.deliveries.settle(claimed, DeliveryState.FAILED, error=str(error))
            return
        pause = min(FIRST_PAUSE_S * 2.0 ** min(claimed.attempts - 1, 10), LONGEST_PAUSE_S)
        log.warning("job %s: %s did not take it (%s); again in %.0f s", job.id, self.carrier.name, error, pause)
        self.deliveries.postpone(claimed, pause, error=str(error), refused=refused)


def _said(state: DeliveryState) -> dict[str, str]:
    return {"state": state.value}


def deliverers(settings: Settings, config: PacsConfig) -> list[Deliverer]:
    """One for each archive of the file, and some for webhooks where the deployment has them.

    Raises:
        IdentityKeyError, WrongIdentityKeyError: of a file that asks for de-identification.
        WebhookSecretError: nothing to sign webhooks with.
    """
    vault = None if config.deidentify is None else Vault(settings.blobs, config.deidentify.key_file)
    engine = open_database(settings.database)
    objects, blobs = ObjectRepository(engine), open_blobs(settings)
    carriers: list[Carrier] = [ArchiveCarrier(one, objects, blobs, vault) for one in config.destination]
    webhooks = open_webhooks(settings)
    if webhooks is not None:
        carriers += [webhooks] * WEBHOOK_THREADS
    return [Deliverer(one, DeliveryRepository(engine)) for one in carriers]


def deliver_until(stop: threading.Event, settings: Settings, config: PacsConfig) -> None:
    """Deliver to every destination until ``stop`` is set; attempts under way are finished."""
    threads = [
        threading.Thread(target=one.run, args=(stop,), name=f"to {one.carrier.name}")
        for one in deliverers(settings, config)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
