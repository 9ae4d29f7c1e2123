"""The JSON that clients see."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from jobs.models import SEED_MAX, Job, RoiText
from jobs.state import JobState
from nca.gate import Rule

ARTEFACTS = ("mask", "report", "uncertainty", "preview")


class SegmentForm(BaseModel):
    """The plain fields of POST /segment."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    model: str = Field(description="Name of the model.", examples=["hippocampus"])
    version: str | None = Field(
        None, description="A version or an alias; default: the alias `production`, else the newest version."
    )
    min_dice: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Dice the mask must be predicted to reach to be accepted; default: the deployment's or version's.",
    )
    alpha: float | None = Field(
        None, gt=0, lt=1, description="Largest share of failures among what is accepted; default: as of `min_dice`."
    )
    rule: Rule | None = Field(
        None,
        description="What an accepted mask must show: a predicted Dice with a stated risk (`conformal`, the default), "
        "or an NQM below the paper's threshold (`nqm`).",
    )
    members: int | None = Field(
        None, ge=1, description="Size of the ensemble; default: the one the version was calibrated with."
    )
    seed: int = Field(
        0,
        ge=0,
        le=SEED_MAX,
        description="Seed of the fire masks: the same scan, version and seed, the same mask.",
    )
    roi: RoiText | None = Field(
        None,
        description="Region of interest, `SPACE:x0,y0,z0:x1,y1,z1` with SPACE one of `ras`, `lps`, `centre` (mm) and "
        "`voxel`: only this part of the scan is segmented; default: all of it.",
        examples=["ras:-45,-47,-31:-9,3,9"],
    )


class JobError(BaseModel):
    """Why a job failed."""

    code: str
    detail: str


class ReasonView(BaseModel):
    """Why a mask is flagged."""

    code: str
    detail: str


class Links(BaseModel):
    """Where the rest of a job is."""

    self: str
    mask: str
    report: str
    uncertainty: str
    preview: str
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
                    "roi": None,
                    "error": None,
                    "links": {
                        "self": f"/jobs/{_EXAMPLE_ID}",
                        **{name: f"/jobs/{_EXAMPLE_ID}/{name}" for name in (*ARTEFACTS, "events")},
                    },
                }
            ]
        },
    )

    id: str
    state: JobState
    progress: float = Field(description="0 to 1.")
    stage: str = Field(description="What the worker is doing, or empty.")
    position: int | None = Field(None, description="Queued jobs before this one; null where not queued, and in lists.")
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
    roi: str | None = None
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
    segments: list[dict[str, Any]] | None = None


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


class AliasView(BaseModel):
    """What an alias means now."""

    model: str
    alias: str
    version: str


class Health(BaseModel):
    """All is well."""

    status: Literal["ok"] = "ok"


def job_json(job: Job, *, position: int | None = None) -> dict[str, Any]:
    """The job as clients see it (`JobView`)."""
    home = f"/jobs/{job.id}"
    view = {
        "id": job.id,
        "state": job.state.value,
        "progress": job.progress,
        "stage": job.stage,
        "position": position,
        "created": _time(job.created_at),
        "started": _time(job.started_at),
        "finished": _time(job.finished_at),
        "attempt": job.attempt,
        **job.request.model_dump(),
        "error": {"code": job.error_code, "detail": job.error_detail} if job.error_code else None,
        "links": {"self": home} | {name: f"{home}/{name}" for name in (*ARTEFACTS, "events")},
    }
    return view | (job.result or {})


def _time(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
