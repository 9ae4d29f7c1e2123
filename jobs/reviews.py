"""What people say of masks: rows that are only added, and gone with their job."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from sqlalchemy import ColumnElement, Engine, Select, func, insert, select
from sqlalchemy.orm import Session

from jobs.audit import Action, note
from jobs.clients import NOBODY, Client
from jobs.database import writing
from jobs.models import Job, Review
from jobs.state import Decision, JobState

PAGE = 500
"""Jobs that are read at once where all of them are."""


class ReviewRepository:
    """Reading and adding of reviews; thread-safe. ``clock`` gives seconds since the epoch.

    Where it is `seen_by` a client, other clients' jobs do not exist.
    """

    def __init__(self, engine: Engine, *, clock: Callable[[], float] = time.time, client: Client = NOBODY) -> None:
        self._engine, self._writer, self._clock, self._client = engine, writing(engine), clock, client

    def seen_by(self, client: Client) -> ReviewRepository:
        """This repository as a client sees it, whose new reviews are its own."""
        return ReviewRepository(self._engine, clock=self._clock, client=client)

    def add(self, job_id: str, decision: Decision, *, comment: str = "", reviewer: str = "") -> Review | None:
        """Write down a review of a job that has succeeded; None where there is no such job, or it has no result."""
        values = {
            "job_id": job_id,
            "at": self._clock(),
            "client": self._client.name,
            "credential": self._client.credential,
            "reviewer": reviewer,
            "decision": decision,
            "comment": comment,
        }
        there = select(Job.id).where(Job.id == job_id, Job.state == JobState.SUCCEEDED, *self._mine)
        with Session(self._writer, expire_on_commit=False) as session, session.begin():
            if session.scalar(there.with_for_update()) is None:
                return None
            note(session.connection(), self._client, Action.REVIEWED, job_id, self._clock())
            return session.scalars(insert(Review).returning(Review), [values]).one()

    def of_job(self, job_id: str) -> Sequence[Review]:
        """The job's reviews, oldest first."""
        query = select(Review).join(Job, Job.id == Review.job_id).where(Review.job_id == job_id, *self._mine)
        with Session(self._engine) as session:
            return session.scalars(query.order_by(Review.id)).all()

    def standing(self, job_ids: Sequence[str]) -> dict[str, Review]:
        """Of these jobs the decisions that hold: the last one of each that is no comment."""
        with Session(self._engine) as session:
            found = session.scalars(self._standing(Review.job_id.in_(job_ids))).all()
        return {one.job_id: one for one in found}

    def decided(self) -> Iterator[tuple[Job, Review]]:
        """Every job with a decision, and the one that holds, in the order of the decisions; read page by page."""
        after, holding = 0, self._standing().subquery()
        query = select(Job, Review).join(Review, Review.job_id == Job.id).join(holding, holding.c.id == Review.id)
        while True:
            following = query.where(Review.id > after, *self._mine).order_by(Review.id).limit(PAGE)
            with Session(self._engine) as session:
                page = session.execute(following).all()
            yield from ((job, review) for job, review in page)
            if len(page) < PAGE:
                return
            after = page[-1][1].id

    def _standing(self, *which: ColumnElement[bool]) -> Select[Review]:
        last = select(func.max(Review.id)).where(Review.decision != Decision.COMMENT, *which).group_by(Review.job_id)
        return select(Review).where(Review.id.in_(last))

    @property
    def _mine(self) -> tuple[ColumnElement[bool], ...]:
        return () if self._client.sees_all else (Job.client == self._client.name,)
