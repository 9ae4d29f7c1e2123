"""Objects stripped as they arrive, and results given back what was taken (DICOM part 15, E)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from imaging.dicom_identity import Identity
from imaging.dicom_restore import restore
from imaging.dicom_strip import strip
from imaging.errors import UnwritableError
from jobs.blobs import Blobs
from pacs.errors import IdentitiesLockedError, IdentityUnreadableError
from pacs.files import SeriesFiles, Stored
from pacs.vault import Taken, Vault

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Stripper:
    """Keeps objects without their identity, and that in the vault."""

    vault: Vault
    files: SeriesFiles
    blobs: Blobs

    def alias(self, identity: Identity) -> Identity:
        """What an object is kept as: under other identifiers, without a description."""
        replaced = {name: self.vault.uid(getattr(identity, name)) for name in ("instance", "study", "series")}
        return replace(identity, **replaced, series_description="")

    def keep(self, series: str, identity: Identity, staged: Path) -> Stored:
        """Keep an object.

        What was taken is durable before what is left of it, so no object is ever without.

        Raises:
            ImagingError: its header cannot be read.
            IdentityUnreadableError: one of this object is there, and the key does not open it.
        """
        instance = self.vault.uid(identity.instance)
        kept = self.files.path(series, instance)
        with self.vault.holding(series), self.blobs.staging() as scratch:
            digest = _digest(staged)
            if kept.exists():
                known = self.vault.get(series, kept.name)
                return Stored.SAME if known is not None and known.digest == digest else Stored.OTHER
            target = scratch / "stripped"
            taken = strip(staged, target, replace_uid=self.vault.uid)
            self.vault.put(series, kept.name, Taken(identity, digest, taken))
            return self.files.add(series, instance, target)

    def discard(self, series: str, files: list[Path]) -> None:
        """Remove these objects and their identities, and not what has come meanwhile."""
        with self.vault.holding(series):
            self.files.discard(files)
            self.vault.discard(series, files)

    def erase(self, series: str) -> None:
        """Remove all of a series and its identities."""
        with self.vault.holding(series):
            self.files.erase(series)
            self.vault.erase(series)


@contextmanager
def restored(files: Sequence[Path], job_id: str, *, blobs: Blobs, vault: Vault | None) -> Iterator[list[Path]]:
    """The files as an archive gets them: with the identity that was taken from their images, where it was.

    Raises:
        IdentitiesLockedError: it was, and it cannot be put back.
    """
    with blobs.identities(job_id) as identities:
        if not identities:
            yield [*files]
            return
        if vault is None:
            raise IdentitiesLockedError("its identities are locked, and the file of routes names no key_file")
        with blobs.staging() as scratch:
            scratch.chmod(0o700)
            yield _restore(files, identities, scratch, vault)


def _restore(files: Sequence[Path], identities: Sequence[Path], scratch: Path, vault: Vault) -> list[Path]:
    try:
        taken = [vault.open(one).stripped for one in identities]
        uids = {new: original for one in taken for new, original in one.uids.items()}
        for file in files:
            restore(file, scratch / file.name, values=taken[0].dataset(), uids=uids)
    except (IdentityUnreadableError, UnwritableError) as error:
        raise IdentitiesLockedError(f"its identities cannot be put back: {error}") from error
    return [scratch / one.name for one in files]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
