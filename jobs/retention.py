"""Which jobs have been kept for as long as their client, or the deployment, keeps them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from sqlalchemy import Engine, exists, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from jobs.database import writing
from jobs.models import Client, Delivery, Job
from jobs.state import TERMINAL, DeliveryState

DAY_S = 86400.0


class Retention:
    """How long finished jobs are kept; thread-safe. ``clock`` gives seconds since the epoch."""

    def __init__(self, engine: Engine, *, clock: Callable[[], float] = time.time) -> None:
        self._engine, self._writer, self._clock = engine, writing(engine), clock

    def over(self, keep_days: float | None, *, limit: int = 1000) -> Sequence[str]:
        """Jobs to be erased, oldest first; ``keep_days`` counts for clients without days of their own, None: for ever.

        What an archive has still to get is kept.
        """
        days = func.coalesce(Client.keep_days, keep_days)
        waiting = exists().where(Delivery.job_id == Job.id, Delivery.state == DeliveryState.PENDING)
        query = (
            select(Job.id)
            .join(Client, Client.name == Job.client, isouter=True)
            .where(Job.state.in_(TERMINAL), Job.finished_at < self._clock() - days * DAY_S, ~waiting)
        )
        with Session(self._engine) as session:
            return session.scalars(query.order_by(Job.finished_at).limit(limit)).all()

    def keep(self, client: str, days: float | None) -> None:
        """From now on keep the jobs of a client for so many days; None: as long as the deployment keeps them."""
        dialect = postgresql if self._engine.dialect.name == "postgresql" else sqlite
        insert = dialect.insert(Client).values(name=client, keep_days=days)
        change = insert.on_conflict_do_update(index_elements=["name"], set_={"keep_days": days})
        with self._writer.begin() as connection:
            connection.execute(change)

    def own(self) -> dict[str, float]:
        """Clients with days of their own."""
        query = select(Client.name, Client.keep_days).where(Client.keep_days.is_not(None)).order_by(Client.name)
        with Session(self._engine) as session:
            return {name: days for name, days in session.execute(query) if days is not None}
