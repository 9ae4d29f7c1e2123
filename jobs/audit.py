"""The audit log: who did what to which job or version, when. The database keeps anybody from changing its rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from enum import StrEnum

from sqlalchemy import Connection, Engine, insert, select
from sqlalchemy.orm import Session

from jobs.clients import Client
from jobs.database import writing
from jobs.models import AuditEntry

PAGE_MAX = 1000
"""Most entries that are listed at once."""


class Action(StrEnum):
    """What is written down."""

    SUBMITTED = "submitted"
    READ = "read"  # a file or a report of a result left the service
    REVIEWED = "reviewed"  # a person said what a mask is worth
    CANCELLED = "cancelled"
    ERASED = "erased"
    PURGED = "purged"  # erased, as its time was over
    PROMOTED = "promoted"
    PUBLISHED = "published"
    KEY_CREATED = "key_created"
    KEY_REVOKED = "key_revoked"


def note(connection: Connection, client: Client, action: Action, subject: str, now: float) -> None:
    """Add an entry in the transaction of what it tells of, so that neither is there without the other."""
    row = {"at": now, "client": client.name, "credential": client.credential, "action": action, "subject": subject}
    connection.execute(insert(AuditEntry), [row])


class AuditLog:
    """Reading and adding; thread-safe. ``clock`` gives seconds since the epoch."""

    def __init__(self, engine: Engine, *, clock: Callable[[], float] = time.time) -> None:
        self._engine, self._writer, self._clock = engine, writing(engine), clock

    def add(self, client: Client, action: Action, subject: str) -> None:
        """Write down what changes no row of its own."""
        with self._writer.begin() as connection:
            note(connection, client, action, subject, self._clock())

    def list(
        self, *, client: str | None = None, subject: str | None = None, after: int = 0, limit: int = PAGE_MAX
    ) -> Sequence[AuditEntry]:
        """Entries with numbers above ``after``, oldest first."""
        query = select(AuditEntry).where(AuditEntry.id > after).order_by(AuditEntry.id).limit(min(limit, PAGE_MAX))
        if client is not None:
            query = query.where(AuditEntry.client == client)
        if subject is not None:
            query = query.where(AuditEntry.subject == subject)
        with Session(self._engine) as session:
            return session.scalars(query).all()
