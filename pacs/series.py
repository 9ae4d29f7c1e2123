"""The rows of the series that archives send. Every change is one conditional UPDATE: of two racing writers one wins."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING
from uuid import UUID, uuid5

from sqlalchemy import Engine, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from jobs.clients import NOBODY, Client
from jobs.database import writing
from jobs.models import Series
from jobs.state import SeriesState

if TYPE_CHECKING:
    from imaging.dicom_identity import Identity

NAMESPACE = UUID("6c1d2f0e-3f4b-5a0c-9d7e-2f8f0b6a4e11")
"""Of the identifiers made here."""
PAGE_MAX = 500
"""Most series that are listed."""


def series_id(client: str, sender: str, series_uid: str) -> str:
    """The series' identifier here: one per client and sender, so that nobody adds to another's series."""
    return uuid5(NAMESPACE, f"{client}\n{sender}\n{series_uid}").hex


class SeriesRepository:
    """All reading and writing of series rows; thread-safe. ``clock`` gives seconds since the epoch.

    Where it is `seen_by` a client, the series that are listed and received are that client's.
    """

    def __init__(self, engine: Engine, *, clock: Callable[[], float] = time.time, client: Client = NOBODY) -> None:
        self._engine, self._writer, self._clock, self._client = engine, writing(engine), clock, client

    def seen_by(self, client: Client) -> SeriesRepository:
        """This repository as a client sees it."""
        return SeriesRepository(self._engine, clock=self._clock, client=client)

    def id(self, sender: str, series_uid: str) -> str:
        """Identifier of a series of this client."""
        return series_id(self._client.name, sender, series_uid)

    def list(self, *, state: SeriesState | None = None, limit: int = 50) -> Sequence[Series]:
        """Series, the one that came last first."""
        query = select(Series).order_by(Series.received_at.desc(), Series.id).limit(min(limit, PAGE_MAX))
        if state is not None:
            query = query.where(Series.state == state)
        if not self._client.sees_all:
            query = query.where(Series.client == self._client.name)
        with Session(self._engine) as session:
            return session.scalars(query).all()

    def received(self, identity: Identity, *, sender: str, quiet_s: float) -> str:
        """Something of a series has come, and counts as complete after so many quiet seconds; its identifier."""
        now = self._clock()
        dialect = postgresql if self._engine.dialect.name == "postgresql" else sqlite
        row = {
            "id": self.id(sender, identity.series),
            "client": self._client.name,
            "sender": sender,
            "study_uid": identity.study,
            "series_uid": identity.series,
            "state": SeriesState.COLLECTING,
            "received_at": now,
            "due_at": now + quiet_s,
        }
        change = {name: row[name] for name in ("state", "received_at", "due_at")}
        with self._writer.begin() as connection:
            insert = dialect.insert(Series).values(row)
            connection.execute(insert.on_conflict_do_update(index_elements=["id"], set_=change))
        return str(row["id"])

    def released(self, identifiers: Sequence[str]) -> None:
        """The sender is done with these series: they need not be quiet any longer."""
        with self._writer.begin() as connection:
            connection.execute(
                update(Series)
                .where(Series.id.in_(identifiers), Series.due_at.is_not(None))
                .values(due_at=self._clock())
            )

    def claim(self, lease_s: float) -> Series | None:
        """Take the series that has been complete for longest; who does not settle it within the lease loses it to the
        next. None where none is complete."""
        now = self._clock()
        due = select(Series.id).where(Series.due_at <= now).order_by(Series.due_at).limit(1)
        change = update(Series).where(Series.id == due.scalar_subquery(), Series.due_at <= now)
        with Session(self._writer, expire_on_commit=False) as session, session.begin():
            return session.scalars(change.values(due_at=now + lease_s).returning(Series)).one_or_none()

    def settle(
        self, claimed: Series, state: SeriesState, *, route: str | None, job_id: str | None = None, detail: str = ""
    ) -> bool:
        """Say what became of a claimed series; False where more of it has come meanwhile, and it is due again."""
        values = {"state": state, "due_at": None, "route": route, "job_id": job_id, "detail": detail or None}
        with self._writer.begin() as connection:
            held = (Series.id == claimed.id, Series.due_at == claimed.due_at, Series.received_at == claimed.received_at)
            return connection.execute(update(Series).where(*held).values(**values)).rowcount == 1

    def counts(self) -> dict[SeriesState, int]:
        """How many series are in each state."""
        with Session(self._engine) as session:
            rows = session.execute(select(Series.state, func.count()).group_by(Series.state))
            return dict.fromkeys(SeriesState, 0) | {row.state: row[1] for row in rows}

    def of_job(self, job_id: str) -> Sequence[str]:
        """Series whose last job this is."""
        with Session(self._engine) as session:
            return session.scalars(select(Series.id).where(Series.job_id == job_id)).all()

    def forget(self, identifier: str, erase: Callable[[str], None]) -> bool:
        """Delete a settled series; False where it is not settled.

        ``erase`` is called for its files before the row is let go of: what comes of it meanwhile waits, and stays.
        """
        with self._writer.begin() as connection:
            gone = delete(Series).where(Series.id == identifier, Series.due_at.is_(None))
            if connection.execute(gone).rowcount != 1:
                return False
            erase(identifier)
            return True

    def stale(self, age_s: float) -> Sequence[str]:
        """Settled series of which nothing came for so long."""
        old = (Series.due_at.is_(None), Series.received_at < self._clock() - age_s)
        with Session(self._engine) as session:
            return session.scalars(select(Series.id).where(*old)).all()
