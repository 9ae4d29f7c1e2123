"""Requests that their client has given a name, so that sending one again is not a second job (`Idempotency-Key`)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, insert
from sqlalchemy.exc import IntegrityError

from jobs.errors import IdempotencyError
from jobs.models import IdempotencyKey


@dataclass(frozen=True)
class Named:
    """A request's name, and the digest of what it holds (`payload_digest`)."""

    key: str
    digest: str

    def write(self, connection: Connection, client: str, job_id: str) -> None:
        """Remember it in the transaction that makes its job.

        Raises:
            IdempotencyError: another request of this client has the name, made it at the same moment perhaps.
        """
        row = {"client": client, "key": self.key, "digest": self.digest, "job_id": job_id}
        try:
            connection.execute(insert(IdempotencyKey), [row])
        except IntegrityError:
            raise IdempotencyError(f"there is a request {self.key[:80]!r}") from None


def payload_digest(fields: Mapping[str, str], folder: Path) -> str:
    """SHA-256 of a request's fields and of the files in ``folder``, in their order."""
    whole = hashlib.sha256()
    for name, value in sorted(fields.items()):
        whole.update(f"{name}={value!r}\n".encode())
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()
