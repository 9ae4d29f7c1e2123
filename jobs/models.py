"""The tables: jobs, where they come from, what was made and said of them, where that goes, and the totals."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from sqlalchemy import JSON, Boolean, Dialect, Enum, Float, ForeignKey, Index, Integer, String, Text, false
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

from imaging.roi import Roi
from jobs.state import TERMINAL, Decision, DeliveryState, JobState, Priority, SeriesState
from nca.gate import Rule
from ncagate.webhook_hosts import checked_url

SEED_MAX = 2**63 - 1
"""Largest seed; it fits a signed 64-bit integer everywhere."""
LOCAL = "local"
"""The client of what comes where no keys are asked for."""
NAME_MAX = 64
"""Longest name of a client."""
SERIES_UID = r"^[0-9.]{1,64}$"
"""A Series Instance UID (DICOM part 5, 9.1)."""


RoiText = Annotated[str, AfterValidator(lambda text: str(Roi.parse(text)))]
"""A region of interest as it is written (`imaging.roi`), checked, always in the same way."""

WebhookText = Annotated[str, AfterValidator(checked_url)]
"""An absolute URL (`ncagate.webhook_hosts`), checked."""


class JobRequest(BaseModel):
    """What a client asked for. The names of its files are not kept: they may name a patient."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(description="Name of the model.")
    version: str = Field(description="Version, resolved and pinned at submission.")
    min_dice: float = Field(gt=0, lt=1, description="Dice the mask must be predicted to reach to be accepted.")
    alpha: float = Field(0.05, gt=0, lt=1, description="Largest share of failures among the accepted.")
    rule: Rule = Field("conformal", description="What an accepted mask must show.")
    members: int = Field(ge=1, description="Size of the ensemble.")
    seed: int = Field(0, ge=0, le=SEED_MAX, description="Seed of the fire masks.")
    series_uid: str | None = Field(None, pattern=SERIES_UID, description="Which one of several DICOM series it is.")
    roi: RoiText | None = Field(None, description="Region of interest; None: the whole scan.")
    priority: Priority = Field(Priority.ROUTINE, description="Urgent scans go before all routine ones.")
    destinations: tuple[str, ...] = Field((), description="Names of the archives that get the result.")
    webhook: WebhookText | None = Field(None, description="URL that is told of the job's end.")


class _RequestColumn(TypeDecorator[JobRequest]):
    """A `JobRequest` as JSON."""

    impl = JSON
    cache_ok = True

    def process_bind_param(self, value: JobRequest | None, dialect: Dialect) -> Any:
        return None if value is None else value.model_dump(mode="json")

    def process_result_value(self, value: Any | None, dialect: Dialect) -> JobRequest | None:
        return None if value is None else JobRequest.model_validate(value)


def _states(kind: type[StrEnum]) -> Enum:
    return Enum(kind, native_enum=False, length=16, values_callable=lambda states: [one.value for one in states])


def _job() -> ForeignKey:
    return ForeignKey("jobs.id", ondelete="CASCADE")


class Base(DeclarativeBase):
    """Registry of the tables."""


class Leased:
    """Columns of what somebody works on under a lease (`jobs.leases`).

    Times are seconds since the epoch (UTC); ``attempt`` is counted before the work.
    """

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    state: Mapped[JobState] = mapped_column(_states(JobState))
    created_at: Mapped[float] = mapped_column(Float(53))
    queued_at: Mapped[float] = mapped_column(Float(53))
    started_at: Mapped[float | None] = mapped_column(Float(53))
    finished_at: Mapped[float | None] = mapped_column(Float(53))
    attempt: Mapped[int] = mapped_column(Integer, default=0)
    lease_until: Mapped[float | None] = mapped_column(Float(53))
    cancel_requested: Mapped[bool] = mapped_column(Boolean, default=False, server_default=false())
    progress: Mapped[float] = mapped_column(Float(53), default=0.0)
    stage: Mapped[str] = mapped_column(String(32), default="")
    error_code: Mapped[str | None] = mapped_column(String(64))
    error_detail: Mapped[str | None] = mapped_column(Text)

    @property
    def finished(self) -> bool:
        """Whether the state is final."""
        return self.state in TERMINAL


class Job(Leased, Base):
    """One job.

    ``client`` is whose it is; ``priority`` is the rank of the request's, for the queue's order. ``model`` and
    ``version`` are the request's as well, for asking which jobs a version has done lately. ``request_id`` and ``trace``
    (a W3C `traceparent`) are of the HTTP request that made it, where one did.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        Index("ix_jobs_version", "model", "version", "state", "finished_at"),
        Index("ix_jobs_turn", "state", "priority", "client", "created_at", "id"),
        Index("ix_jobs_created_at_id", "created_at", "id"),
        Index("ix_jobs_client_created_at", "client", "created_at", "id"),
    )

    client: Mapped[str] = mapped_column(String(NAME_MAX), default=LOCAL, server_default=LOCAL)
    priority: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    model: Mapped[str] = mapped_column(String(NAME_MAX), default="", server_default="")
    version: Mapped[str] = mapped_column(String(NAME_MAX), default="", server_default="")
    request: Mapped[JobRequest] = mapped_column(_RequestColumn)
    result: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    request_id: Mapped[str | None] = mapped_column(String(36))
    trace: Mapped[str | None] = mapped_column(String(64))


class Training(Leased, Base):
    """One training: a dataset by its name, its configuration as it was when it was accepted, and how far it is.

    ``iteration`` of ``iterations`` are over all folds; ``dice`` is of the last batch's patches, ``validation_dice`` of
    the scans held out so far. ``model`` and ``version`` are what was published.
    """

    __tablename__ = "trainings"
    __table_args__ = (Index("ix_trainings_state", "state", "created_at"),)

    client: Mapped[str] = mapped_column(String(NAME_MAX))
    dataset: Mapped[str] = mapped_column(String(64))
    config: Mapped[str] = mapped_column(Text)
    iteration: Mapped[int] = mapped_column(Integer, default=0)
    iterations: Mapped[int] = mapped_column(Integer, default=0)
    loss: Mapped[float | None] = mapped_column(Float(53))
    dice: Mapped[float | None] = mapped_column(Float(53))
    validation_dice: Mapped[float | None] = mapped_column(Float(53))
    eta_s: Mapped[float | None] = mapped_column(Float(53))
    model: Mapped[str | None] = mapped_column(String(64))
    version: Mapped[str | None] = mapped_column(String(64))


class Client(Base):
    """What is remembered of a client.

    ``served_at`` is when a worker last took up a job of it; ``keep_days`` is how long its finished jobs are kept, None:
    as long as the deployment keeps them.
    """

    __tablename__ = "clients"

    name: Mapped[str] = mapped_column(String(NAME_MAX), primary_key=True)
    served_at: Mapped[float | None] = mapped_column(Float(53))
    keep_days: Mapped[float | None] = mapped_column(Float(53))


class ApiKey(Base):
    """A client's key: never the secret itself, only its SHA-256. ``scopes`` are separated by spaces."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    client: Mapped[str] = mapped_column(String(NAME_MAX))
    scopes: Mapped[str] = mapped_column(String(64))
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[float] = mapped_column(Float(53))
    expires_at: Mapped[float | None] = mapped_column(Float(53))
    revoked_at: Mapped[float | None] = mapped_column(Float(53))


class AuditEntry(Base):
    """Who did what, when; a trigger keeps anybody from changing it."""

    __tablename__ = "audit_log"
    __table_args__ = {"sqlite_autoincrement": True}  # noqa: RUF012  # as SQLAlchemy wants it

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    at: Mapped[float] = mapped_column(Float(53))
    client: Mapped[str] = mapped_column(String(NAME_MAX), index=True)
    credential: Mapped[str] = mapped_column(String(96))
    action: Mapped[str] = mapped_column(String(16))
    subject: Mapped[str] = mapped_column(String(255), index=True)


class Shadow(Base):
    """What a candidate version made of a finished job, beside the version that answered it; gone with the job.

    ``outcome`` is ``started`` before the work, so that what kills its worker is not tried again; figures are there once
    it is ``compared``. ``dice`` is the lowest Dice between the two versions' masks of a structure; ``nqm`` and
    ``predicted_dice`` are the candidate's less the other's; times are seconds.
    """

    __tablename__ = "shadows"
    __table_args__ = (Index("ix_shadows_versions", "model", "candidate", "version", "started_at"),)

    job_id: Mapped[str] = mapped_column(_job(), primary_key=True)
    candidate: Mapped[str] = mapped_column(String(NAME_MAX), primary_key=True)
    model: Mapped[str] = mapped_column(String(NAME_MAX))
    version: Mapped[str] = mapped_column(String(NAME_MAX))
    started_at: Mapped[float] = mapped_column(Float(53))
    outcome: Mapped[str] = mapped_column(String(64))
    dice: Mapped[float | None] = mapped_column(Float(53))
    nqm: Mapped[float | None] = mapped_column(Float(53))
    predicted_dice: Mapped[float | None] = mapped_column(Float(53))
    verdict_changed: Mapped[bool | None] = mapped_column(Boolean)
    seconds: Mapped[float | None] = mapped_column(Float(53))
    candidate_seconds: Mapped[float | None] = mapped_column(Float(53))


class IdempotencyKey(Base):
    """What a client called a request, and the job that came of it; gone with the job."""

    __tablename__ = "idempotency_keys"

    client: Mapped[str] = mapped_column(String(NAME_MAX), primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    digest: Mapped[str] = mapped_column(String(64))
    job_id: Mapped[str] = mapped_column(_job(), index=True)


class DicomObject(Base):
    """A DICOM object that a job made: identifiers only; ``file`` is its name in the result."""

    __tablename__ = "dicom_objects"

    sop_instance_uid: Mapped[str] = mapped_column(String(64), primary_key=True)
    job_id: Mapped[str] = mapped_column(_job(), index=True)
    study_uid: Mapped[str] = mapped_column(String(64), index=True)
    series_uid: Mapped[str] = mapped_column(String(64), index=True)
    sop_class_uid: Mapped[str] = mapped_column(String(64))
    modality: Mapped[str] = mapped_column(String(16))
    file: Mapped[str] = mapped_column(String(32))


class Delivery(Base):
    """A result on its way to an archive, or word of a job's end to its webhook.

    ``due_at`` is when it is tried next, None once the state is final. ``refusals`` are those of the attempts that were
    answered with a refusal.
    """

    __tablename__ = "deliveries"

    job_id: Mapped[str] = mapped_column(_job(), primary_key=True)
    destination: Mapped[str] = mapped_column(String(64), primary_key=True)
    state: Mapped[DeliveryState] = mapped_column(_states(DeliveryState))
    due_at: Mapped[float | None] = mapped_column(Float(53), index=True)
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    refusals: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
    finished_at: Mapped[float | None] = mapped_column(Float(53))
    error: Mapped[str | None] = mapped_column(Text)


class Review(Base):
    """What a person said of a finished job's mask; a trigger keeps it as it was written, and it is gone with the job.

    ``client`` and ``credential`` are by what the person was known, as in the audit log; ``reviewer`` is the name that
    the person gave.
    """

    __tablename__ = "reviews"
    __table_args__ = {"sqlite_autoincrement": True}  # noqa: RUF012  # as SQLAlchemy wants it

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    job_id: Mapped[str] = mapped_column(_job(), index=True)
    at: Mapped[float] = mapped_column(Float(53))
    client: Mapped[str] = mapped_column(String(NAME_MAX))
    credential: Mapped[str] = mapped_column(String(96))
    reviewer: Mapped[str] = mapped_column(String(NAME_MAX))
    decision: Mapped[Decision] = mapped_column(_states(Decision))
    comment: Mapped[str] = mapped_column(Text)


class Series(Base):
    """A DICOM series that was sent here. ``due_at`` is when it counts as complete, None once that was acted on.

    ``client`` is whose it is. ``id`` is made of client, sender and series; ``job_id`` is the last job made of it, which
    may be erased by now.
    """

    __tablename__ = "series"
    __table_args__ = (Index("ix_series_client", "client", "received_at"),)

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    client: Mapped[str] = mapped_column(String(NAME_MAX), default=LOCAL, server_default=LOCAL)
    sender: Mapped[str] = mapped_column(String(64))
    study_uid: Mapped[str] = mapped_column(String(64))
    series_uid: Mapped[str] = mapped_column(String(64))
    state: Mapped[SeriesState] = mapped_column(_states(SeriesState))
    received_at: Mapped[float] = mapped_column(Float(53), index=True)
    due_at: Mapped[float | None] = mapped_column(Float(53), index=True)
    route: Mapped[str | None] = mapped_column(String(64))
    job_id: Mapped[str | None] = mapped_column(String(32), index=True)
    detail: Mapped[str | None] = mapped_column(Text)


class Worker(Base):
    """A worker, as long as it has not signed off: when it began, was last sent a canary, and last showed that it works.

    ``name`` is its Celery node's.
    """

    __tablename__ = "workers"

    name: Mapped[str] = mapped_column(String(255), primary_key=True)
    started_at: Mapped[float] = mapped_column(Float(53))
    asked_at: Mapped[float | None] = mapped_column(Float(53))
    seen_at: Mapped[float | None] = mapped_column(Float(53))


class Tally(Base):
    """A running total over all jobs that ever finished: it outlives their erasure and the gateways.

    ``labels`` is a JSON array of label values in the order of the metric's label names; ``bucket`` is the
    upper bound of a histogram's bucket, ``sum`` for its sum, or empty for a counter.
    """

    __tablename__ = "job_tallies"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    labels: Mapped[str] = mapped_column(String(255), primary_key=True)
    bucket: Mapped[str] = mapped_column(String(32), primary_key=True)
    value: Mapped[float] = mapped_column(Float(53))
