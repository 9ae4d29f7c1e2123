"""`ncagate deliver`: results on their way to the archives that asked for them.

One thread an archive, so that a dead one keeps nobody else waiting. What is sent has the same identifiers and bytes at
every attempt, so an archive that took it without our learning of it holds it once.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError

from jobs.archive import DeliveryRepository, ObjectRepository
from jobs.blobs import Blobs
from jobs.database import open_database
from jobs.models import Delivery, DicomObject, Job
from jobs.state import DeliveryState
from ncagate.settings import Settings
from pacs.config import Destination, PacsConfig, StowDestination
from pacs.cstore import send_cstore
from pacs.deidentify import restored
from pacs.errors import DeliveryError, RefusedError
from pacs.stow import send_stow
from pacs.vault import Vault

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

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Deliverer:
    """Sends what is due to one archive. ``clock`` gives seconds since the epoch."""

    destination: Destination
    deliveries: DeliveryRepository
    objects: ObjectRepository
    blobs: Blobs
    clock: Callable[[], float] = time.time
    vault: Vault | None = None

    def run(self, stop: threading.Event) -> None:
        """Send until ``stop`` is set."""
        while not stop.is_set():
            try:
                idle = not self.deliver_one()
            except SQLAlchemyError:
                log.exception("%s: the database does not answer", self.destination.name)
                idle = True
            if idle:
                stop.wait(POLL_S)

    def deliver_one(self) -> bool:
        """Try the delivery that has been due for longest; False where none is due."""
        claimed = self.deliveries.claim(self.destination.name, self.destination.timeout_s + LEASE_MARGIN_S)
        if claimed is None:
            return False
        found = self.objects.find({"job_id": claimed.job_id})
        if not found:  # erased meanwhile, and its deliveries with it
            return True
        job = found[0][1]
        if (job.result or {}).get("verdict") != "accept" and not self.destination.flagged:
            self.deliveries.settle(claimed, DeliveryState.WITHHELD, error="flagged, and only accepted masks go there")
            return True
        try:
            self._send(job, [made for made, _ in found])
        except DeliveryError as error:
            self._failed(claimed, job, error)
        except Exception as error:  # whatever it was, the other deliveries go on
            log.exception("job %s: could not be delivered to %s", job.id, self.destination.name)
            self._failed(claimed, job, DeliveryError(type(error).__name__))
        else:
            self.deliveries.settle(claimed, DeliveryState.DELIVERED)
            log.info("job %s: delivered to %s", job.id, self.destination.name)
        return True

    def _send(self, job: Job, objects: Sequence[DicomObject]) -> None:
        folder = self.blobs.result_dir(job.id, job.attempt)
        files = [folder / made.file for made in objects]
        with restored(files, job.id, blobs=self.blobs, vault=self.vault) as ready:
            if isinstance(self.destination, StowDestination):
                send_stow(self.destination, ready)
            else:
                send_cstore(self.destination, ready)

    def _failed(self, claimed: Delivery, job: Job, error: DeliveryError) -> None:
        refused = isinstance(error, RefusedError)
        given_up = refused and claimed.refusals + 1 >= REFUSALS_MAX
        if given_up or self.clock() - (job.finished_at or 0.0) > GIVE_UP_S:
            log.error("job %s: given up delivering to %s: %s", job.id, self.destination.name, error)
            self.deliveries.settle(claimed, DeliveryState.FAILED, error=str(error))
            return
        pause = min(FIRST_PAUSE_S * 2.0 ** min(claimed.attempts - 1, 10), LONGEST_PAUSE_S)
        log.warning("job %s: %s did not take it (%s); again in %.0f s", job.id, self.destination.name, error, pause)
        self.deliveries.postpone(claimed, pause, error=str(error), refused=refused)


def deliverers(settings: Settings, config: PacsConfig) -> list[Deliverer]:
    """One for each archive of the file.

    Raises:
        IdentityKeyError, WrongIdentityKeyError: of a file that asks for de-identification.
    """
    vault = None if config.deidentify is None else Vault(settings.blobs, config.deidentify.key_file)
    engine = open_database(settings.database)
    deliveries, objects = DeliveryRepository(engine), ObjectRepository(engine)
    blobs = Blobs(settings.blobs)
    return [Deliverer(one, deliveries, objects, blobs, vault=vault) for one in config.destination]


def deliver_until(stop: threading.Event, settings: Settings, config: PacsConfig) -> None:
    """Deliver to every archive until ``stop`` is set; attempts under way are finished."""
    threads = [
        threading.Thread(target=one.run, args=(stop,), name=f"to {one.destination.name}")
        for one in deliverers(settings, config)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
