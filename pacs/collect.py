"""Series on their way in: instances are kept as they come; once a series is complete, a job is made of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid5

from imaging.errors import ImagingError
from jobs.audit import Action
from jobs.blobs import Blobs
from jobs.clients import Client
from jobs.errors import JobsError
from jobs.models import JobRequest, Series
from jobs.objects import open_blobs
from jobs.repository import JobRepository
from jobs.state import SeriesState
from jobs.submission import submit
from model_store.errors import ModelStoreError
from model_store.registry import Registry
from ncagate.bucket import Bucket
from ncagate.settings import Settings
from pacs.config import PacsConfig
from pacs.errors import InvalidPacsConfigError
from pacs.files import SeriesFiles, Stored, set_digest
from pacs.routing import find_route
from pacs.series import NAMESPACE, SeriesRepository
from pacs.series_objects import SeriesObjects

if TYPE_CHECKING:
    from imaging.dicom_identity import Identity
    from pacs.deidentify import Stripper

LEASE_S = 60.0
"""How long one process has for making a job of a series before another one tries."""
ROUND_MAX = 100
"""Most series that are looked at before the caller gets to do other things."""
KEPT_S = 86400.0
"""For how long after its last instance a series is kept, so that late instances complete it."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Receipt:
    """What became of one object that was sent.

    Attributes:
        identity: None where it could not be read, with the reason in ``error``.
        stored: None where it was not kept.
        series: the identifier of its series here.
    """

    identity: Identity | None
    stored: Stored | None = None
    series: str | None = None
    error: ImagingError | None = None


@dataclass(frozen=True)
class Collection:
    """Everything between an instance's arrival and its job."""

    settings: Settings
    config: PacsConfig
    jobs: JobRepository
    blobs: Blobs
    registry: Registry
    series: SeriesRepository
    files: SeriesFiles
    stripper: Stripper | None = None

    def seen_by(self, client: Client) -> Collection:
        """This collection as a client sees it: what it receives is that client's."""
        return replace(self, series=self.series.seen_by(client), jobs=self.jobs.seen_by(client))

    def receive(
        self, staged: Sequence[Path], *, sender: str, study: str | None = None, instance: str | None = None
    ) -> list[Receipt]:
        """Keep objects; when this returns each is durable, or its receipt says why it is not.

        Of objects of another ``study`` or ``instance``, where one is named, none is kept.
        """
        read = [_read(one) for one in staged]
        wanted = [_wanted(one.identity, study=study, instance=instance) for one in read]
        series = {one.series: self._alias(one) for one in wanted if one is not None}.values()
        self._received(series, sender=sender)  # before the files: so nobody erases them, and none is without a row
        receipts = [
            receipt if identity is None else self._keep(file, identity, sender=sender)
            for file, receipt, identity in zip(staged, read, wanted, strict=True)
        ]
        self._received(series, sender=sender)  # after them: quiet begins now
        return receipts

    def submit_complete(self, made: Callable[[str], object]) -> int:
        """Make jobs of the series that are complete, and tell ``made`` of each; how many were looked at."""
        looked = 0
        while looked < ROUND_MAX and (claimed := self.series.claim(LEASE_S)) is not None:
            looked += 1
            try:
                self._submit(claimed, made)
            except Exception:  # one series must not keep the others from being looked at; its lease runs out
                log.exception("series %s: no job could be made of it; it is tried again", claimed.id)
        return looked

    def erase(self, job_id: str, *, why: Action = Action.ERASED) -> bool:
        """Erase a finished job down to its files and the series it was made of; False where there is none.

        The series first: what an archive sends again makes the same job, once this one is gone.
        """
        self._erase(self.series.of_job(job_id))
        if not self.jobs.erase(job_id, why=why, first=self.blobs.erase_first):
            return False
        self.blobs.erase_last(job_id)
        return True

    def sweep(self) -> None:
        """Erase series of which nothing has come for long; their jobs keep their own links to the files."""
        self._erase(self.series.stale(KEPT_S))

    def _erase(self, identifiers: Sequence[str]) -> None:
        for one in identifiers:
            self.series.forget(one, self.files.erase if self.stripper is None else self.stripper.erase)

    def _received(self, series: Iterable[Identity], *, sender: str) -> None:
        for one in series:
            self.series.received(one, sender=sender, quiet_s=self.config.quiet_s)

    def _keep(self, file: Path, identity: Identity, *, sender: str) -> Receipt:
        series = self.series.id(sender, self._alias(identity).series)
        if self.stripper is None:
            return Receipt(identity, self.files.add(series, identity.instance, file), series)
        try:
            return Receipt(identity, self.stripper.keep(series, identity, file), series)
        except ImagingError as error:
            return Receipt(None, error=error)

    def _alias(self, identity: Identity) -> Identity:
        """What an object is kept as."""
        return identity if self.stripper is None else self.stripper.alias(identity)

    def _submit(self, series: Series, made: Callable[[str], object]) -> None:
        with self.files.alone(series.id) as alone:
            if alone:  # else a slower process still has it in hand, past its lease
                self._decide(series, made)

    def _decide(self, series: Series, made: Callable[[str], object]) -> None:
        files = self.files.instances(series.id)
        route = find_route(self.config.route, self._was(series, files[0]), sender=series.sender) if files else None
        if route is None:
            if self.series.settle(series, SeriesState.UNROUTED, route=None):
                if self.stripper is not None:
                    self.stripper.discard(series.id, files)
                else:
                    self.files.discard(files)
                log.info("series %s: %d instances, and no route wants them", series.id, len(files))
            return
        try:
            request = route.wish().request(self.registry, self.settings, destinations=route.destinations)
        except (ModelStoreError, JobsError) as error:
            self.series.settle(series, SeriesState.REFUSED, route=route.name, detail=f"{error.code}: {error}")
            log.warning("series %s: route %s leads nowhere: %s", series.id, route.name, error)
            return
        job_id = uuid5(NAMESPACE, f"{series.id} {set_digest(files)}").hex
        new = self._make_job(job_id, series, files, request)
        self.series.settle(series, SeriesState.SUBMITTED, route=route.name, job_id=job_id)
        if new:
            log.info("series %s: %d instances became job %s by route %s", series.id, len(files), job_id, route.name)
            made(job_id)

    def _make_job(self, job_id: str, series: Series, files: list[Path], request: JobRequest) -> bool:
        """Create the job; False where the same instances have become one before."""
        if self.jobs.get(job_id) is not None:
            return False
        if (
            self.settings.blobs_url is None
        ):  # in a bucket the same is put once more, and somebody may be just putting it
            self.blobs.erase(job_id)  # what a crash may have left
        if self.stripper is not None:
            with self.blobs.staging() as staged:
                if self.stripper.vault.link_into(series.id, files, staged):
                    self.blobs.commit_identities(staged, job_id)
        with self.blobs.staging() as staged:
            self.files.link_into(files, staged)
            owner = Client(series.client, frozenset(), f"series from {series.sender}")
            submit(self.jobs.seen_by(owner), self.blobs, job_id, staged=staged, request=request)
        return True

    def _was(self, series: Series, file: Path) -> Identity:
        """What an object was when it came, for the routes."""
        taken = None if self.stripper is None else self.stripper.vault.get(series.id, file.name)
        if taken is not None:
            return taken.identity
        with self.files.opened(file) as readable:
            return _identity(readable)


def _read(file: Path) -> Receipt:
    try:
        return Receipt(_identity(file))
    except ImagingError as error:
        return Receipt(None, error=error)


def _wanted(identity: Identity | None, *, study: str | None, instance: str | None) -> Identity | None:
    """The identity, unless it is of another study or instance than was named."""
    if identity is None or study not in (None, identity.study) or instance not in (None, identity.instance):
        return None
    return identity


def _identity(file: Path) -> Identity:
    from imaging.dicom_identity import read_identity  # late: most gateways never see DICOM, and pydicom takes a second

    return read_identity(file)


def open_collection(settings: Settings, *, config: PacsConfig, jobs: JobRepository, registry: Registry) -> Collection:
    """The collection of this deployment.

    Raises:
        IdentityKeyError, WrongIdentityKeyError: of a file of routes that asks for de-identification.
        InvalidPacsConfigError: it asks for that, and files are in a bucket.
    """
    blobs, files = open_blobs(settings), _series_files(settings, config)
    return Collection(
        settings=settings,
        config=config,
        jobs=jobs,
        blobs=blobs,
        registry=registry,
        series=SeriesRepository(jobs.engine),
        files=files,
        stripper=_stripper(settings, config, files, blobs),
    )


def _series_files(settings: Settings, config: PacsConfig) -> SeriesFiles:
    if settings.blobs_url is None:
        return SeriesFiles(settings.blobs)
    if config.deidentify is not None:  # what is taken is locked away on one machine
        raise InvalidPacsConfigError("[deidentify] needs a data folder, and NCAGATE_BLOBS_URL names a bucket")
    return SeriesObjects(settings.blobs, Bucket(settings.blobs_url))


def _stripper(settings: Settings, config: PacsConfig, files: SeriesFiles, blobs: Blobs) -> Stripper | None:
    if config.deidentify is None:
        return None
    from pacs.deidentify import Stripper  # late, as of `_identity`
    from pacs.vault import Vault

    return Stripper(Vault(settings.blobs, config.deidentify.key_file), files, blobs)
