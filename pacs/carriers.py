"""What takes word of a job's end to one destination; and the kind that takes results to an archive."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from jobs.archive import ObjectRepository
from jobs.blobs import Blobs
from jobs.models import Job
from pacs.config import Destination, StowDestination
from pacs.cstore import send_cstore
from pacs.deidentify import restored
from pacs.errors import WithheldError
from pacs.stow import send_stow
from pacs.vault import Vault


class Carrier(Protocol):
    """Makes one attempt at a time; which ones, and when, is the deliverer's to say."""

    @property
    def name(self) -> str:
        """Of the destination, as it stands in the deliveries."""

    @property
    def timeout_s(self) -> float:
        """About how long an attempt may take."""

    def carry(self, job: Job) -> None:
        """Send what the destination is to have of a job that has ended.

        Raises:
            WithheldError: it is not to have it.
            GoneError: it does not want it now or later.
            RefusedError: it answered, and does not want it.
            DeliveryError: it does not answer, or cannot take it now.
        """


@dataclass(frozen=True)
class ArchiveCarrier:
    """Sends a job's DICOM objects to an archive."""

    destination: Destination
    objects: ObjectRepository
    blobs: Blobs
    vault: Vault | None = None

    @property
    def name(self) -> str:
        """The archive's."""
        return self.destination.name

    @property
    def timeout_s(self) -> float:
        """Of every wait for the archive."""
        return self.destination.timeout_s

    def carry(self, job: Job) -> None:
        """Send all of them, in the order of their names backwards: the SEG before the SR that refers to it."""
        if (job.result or {}).get("verdict") != "accept" and not self.destination.flagged:
            raise WithheldError("flagged, and only accepted masks go there")
        if names := [made.file for made, _ in self.objects.find({"job_id": job.id})]:
            with self.blobs.results(job.id, job.attempt, names) as files:
                self._send(job, files)  # without one the job has been erased meanwhile, and its deliveries with it

    def _send(self, job: Job, files: Sequence[Path]) -> None:
        with restored(files, job.id, blobs=self.blobs, vault=self.vault) as ready:
            if isinstance(self.destination, StowDestination):
                send_stow(self.destination, ready)
            else:
                send_cstore(self.destination, ready)
