"""The JSON that clients see."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from jobs.datasets import NAME as DATASET_NAME
from jobs.models import Delivery, Job, Review, Training
from jobs.state import Decision, DeliveryState, JobState, Priority, SeriesState
from nca.gate import Rule

ARTEFACTS = ("mask", "report", "uncertainty", "preview")
LINKED = (*ARTEFACTS, "scan", "reviews", "events")


class JobError(BaseModel):
    """Why a job failed."""

    code: str
    detail: str


class ReasonView(BaseModel):
    """Why a mask is flagged."""

    code: str
    detail: str


class DeliveryView(BaseModel):
    """A result on its way to an archive, or word of the job's end to its webhook."""

    destination: str = Field(description="Name of an archive, or `webhook`.")
    state: DeliveryState
    attempts: int
    finished: AwareDatetime | None
    error: str | None = Field(description="Why the last attempt failed, or why nothing was sent.")


class StandingView(BaseModel):
    """What a person has decided of a mask, last; `GET /jobs/{id}/reviews` has all that was said."""

    decision: Decision
    at: AwareDatetime
    client: str
    reviewer: str


class Links(BaseModel):
    """Where the rest of a job is."""

    self: str
    mask: str
    report: str
    uncertainty: str
    preview: str
    scan: str
    reviews: str
    events: str


_EXAMPLE_ID = "5f0c3ab1d5e74a0f8a3f4f7a3d9b2c11"


class JobView(BaseModel):
    """A job. From ``verdict`` on, the fields are there once it has succeeded."""

    model_config = ConfigDict(
        title="Job",
        json_schema_extra={
            "examples": [
                {
                    "id": _EXAMPLE_ID,
                    "state": "running",
                    "progress": 0.4,
                    "stage": "segment",
                    "position": None,
                    "created": "2026-11-24T12:00:00Z",
                    "started": "2026-11-24T12:00:01Z",
                    "finished": None,
                    "attempt": 1,
                    "model": "hippocampus",
                    "version": "1.0.0",
                    "min_dice": 0.8,
                    "alpha": 0.05,
                    "rule": "conformal",
                    "members": 10,
                    "seed": 0,
                    "series_uid": None,
                    "roi": None,
                    "priority": "routine",
                    "destinations": [],
                    "webhook": None,
                    "error": None,
                    "links": {
                        "self": f"/jobs/{_EXAMPLE_ID}",
                        **{name: f"/jobs/{_EXAMPLE_ID}/{name}" for name in LINKED},
                    },
                }
            ]
        },
    )

    id: str
    state: JobState
    progress: float = Field(description="0 to 1.")
    stage: str = Field(description="What the worker is doing, or empty.")
    position: int | None = Field(
        None,
        description="Queued jobs that are more urgent or older, whoever sent them; clients take turns, so it is "
        "no promise. Null where not queued, and in lists.",
    )
    created: AwareDatetime
    started: AwareDatetime | None = None
    finished: AwareDatetime | None = None
    attempt: int
    model: str
    version: str
    min_dice: float
    alpha: float
    rule: Rule
    members: int
    seed: int
    series_uid: str | None = None
    roi: str | None = None
    priority: Priority = Priority.ROUTINE
    destinations: list[str]
    webhook: str | None = None
    error: JobError | None = None
    links: Links
    verdict: Literal["accept", "flag"] | None = None
    reasons: list[ReasonView] | None = None
    nqm: float | None = None
    predicted_dice: float | None = None
    dice_interval: tuple[float, float] | None = Field(None, description="Range of the true Dice (90 %).")
    required_dice: float | None = Field(None, description="What the predicted Dice had to reach.")
    pairwise_dice: float | None = None
    nqm_threshold: float | None = None
    volume_ml: float | None = None
    engine: str | None = None
    seconds: float | None = Field(None, description="Work on the scan, in seconds.")
    stage_seconds: dict[str, float] | None = None
    warnings: list[str] | None = None
    input_statistics: dict[str, float] | None = Field(
        None, description="Figures of the scan that the drift monitor compares: spacing, intensities, roughness."
    )
    segments: list[dict[str, Any]] | None = None
    deliveries: list[DeliveryView] | None = Field(None, description="Not in lists.")
    review: StandingView | None = Field(None, description="The decision of a person that holds, if there is one.")


class SeriesView(BaseModel):
    """A DICOM series that an archive has sent."""

    id: str
    sender: str = Field(description="Title of the application entity, or `dicomweb`.")
    study_uid: str
    series_uid: str
    state: SeriesState = Field(
        description="`collecting` until it is complete; then `submitted`, `unrouted` (no route wants it) or `refused`."
    )
    received: AwareDatetime = Field(description="When something of it came last.")
    route: str | None
    job: str | None = Field(description="The last job made of it.")
    detail: str | None = Field(description="Why it was refused.")


class SeriesList(BaseModel):
    """Series, those that came last first."""

    series: list[SeriesView]


class JobList(BaseModel):
    """A page of jobs, newest first."""

    jobs: list[JobView]
    next: str | None = Field(description="The next page, if there may be one.")


class VersionSummary(BaseModel):
    """One version of a model."""

    version: str
    usable: bool = Field(description="False where its manifest or its weights are damaged.")
    created: AwareDatetime | None
    link: str


class ModelView(BaseModel):
    """A model, its versions and the names given to some of them."""

    name: str
    versions: list[VersionSummary]
    aliases: dict[str, str] | None = Field(
        description="Alias to version; null where the file that holds them is damaged.",
        examples=[{"production": "1.0.0"}],
    )
    link: str


class ModelList(BaseModel):
    """All models."""

    models: list[ModelView]


class AliasChange(BaseModel):
    """Which version an alias shall mean."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"version": "1.0.0"}]})

    version: str


class TrainingWish(BaseModel):
    """What is to be trained on."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"dataset": "liver"}]})

    dataset: str = Field(
        pattern=DATASET_NAME,
        description="Name of a folder of the deployment's, which holds scans, labels and training.toml.",
    )


class TrainingView(BaseModel):
    """A training. ``model`` and ``version`` are there once it has succeeded: what was published as `candidate`."""

    model_config = ConfigDict(title="Training")

    id: str
    state: JobState
    dataset: str
    created: AwareDatetime
    started: AwareDatetime | None
    finished: AwareDatetime | None
    attempt: int
    progress: float = Field(description="Share of the iterations that is done, 0 to 1.")
    stage: str
    iteration: int = Field(description="Iterations done, over all folds.")
    iterations: int
    loss: float | None
    dice: float | None = Field(description="Dice of the last batch's patches.")
    validation_dice: float | None = Field(description="Mean Dice of the scans held out from the folds trained so far.")
    eta_seconds: float | None = Field(description="Until the last iteration, as fast as up to now.")
    model: str | None
    version: str | None
    error: JobError | None
    links: dict[str, str]


class TrainingList(BaseModel):
    """The newest trainings, newest first."""

    trainings: list[TrainingView]


class AliasView(BaseModel):
    """What an alias means now."""

    model: str
    alias: str
    version: str


class Health(BaseModel):
    """All is well."""

    status: Literal["ok"] = "ok"


def job_json(
    job: Job,
    *,
    position: int | None = None,
    deliveries: Sequence[Delivery] | None = None,
    review: Review | None = None,
) -> dict[str, Any]:
    """The job as clients see it (`JobView`)."""
    home = f"/jobs/{job.id}"
    view = {
        "id": job.id,
        "state": job.state.value,
        "progress": job.progress,
        "stage": job.stage,
        "position": position,
        "created": time_json(job.created_at),
        "started": time_json(job.started_at),
        "finished": time_json(job.finished_at),
        "attempt": job.attempt,
        **job.request.model_dump(),
        "error": {"code": job.error_code, "detail": job.error_detail} if job.error_code else None,
        "links": {"self": home} | {name: f"{home}/{name}" for name in LINKED},
    }
    if deliveries is not None:
        view["deliveries"] = [_delivery_json(one) for one in deliveries]
    if review is not None:
        view["review"] = {
            "decision": review.decision.value,
            "at": time_json(review.at),
            "client": review.client,
            "reviewer": review.reviewer,
        }
    return view | (job.result or {})


def training_json(training: Training) -> dict[str, Any]:
    """The training as clients see it (`TrainingView`)."""
    return {
        "id": training.id,
        "state": training.state.value,
        "dataset": training.dataset,
        "created": time_json(training.created_at),
        "started": time_json(training.started_at),
        "finished": time_json(training.finished_at),
        "attempt": training.attempt,
        "progress": training.progress,
        "stage": training.stage,
        "iteration": training.iteration,
        "iterations": training.iterations,
        "loss": training.loss,
        "dice": training.dice,
        "validation_dice": training.validation_dice,
        "eta_seconds": training.eta_s,
        "model": training.model,
        "version": training.version,
        "error": {"code": training.error_code, "detail": training.error_detail} if training.error_code else None,
        "links": {"self": f"/training/{training.id}"},
    }


def _delivery_json(delivery: Delivery) -> dict[str, Any]:
    return {
        "destination": delivery.destination,
        "state": delivery.state.value,
        "attempts": delivery.attempts,
        "finished": time_json(delivery.finished_at),
        "error": delivery.error,
    }


def time_json(seconds: float | None) -> str | None:
    """Seconds since the epoch as RFC 3339 in UTC."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
