"""What the service says, typed: jobs, models, and the outcome of a scan."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal, TypedDict, TypeVar, get_args

from ncagate.client.errors import JobCancelledError, JobFailedError, NotFinishedError, NotUnderstoodError

State = Literal["queued", "running", "succeeded", "failed", "cancelled"]
Verdict = Literal["accept", "flag"]
ENDED: frozenset[State] = frozenset({"succeeded", "failed", "cancelled"})

IDENTIFIER = re.compile(r"[0-9a-zA-Z_-]{1,64}")
"""Of a job; files are called by it, so it must be no path."""

T = TypeVar("T")
Progress = Callable[[int, int], None]
"""Is told the bytes of the scan that were sent, and how many there are. A new attempt begins at 0 again."""


class Options(TypedDict, total=False):
    """What may be said of a scan beside its model (docs/api.md); what is left out is the service's to choose."""

    version: str
    min_dice: float
    alpha: float
    rule: Literal["conformal", "nqm"]
    members: int
    seed: int
    roi: str
    series_uid: str
    priority: Literal["routine", "urgent"]
    webhook: str


class Submitting(Options, total=False):
    """Options, and how a scan is sent.

    ``timeout``: seconds that sending and waiting may take together (default: as long as it takes).
    ``idempotency_key`` names the request (docs/api.md); by default each call has a name of its own, so that its
    attempts make one job.
    """

    timeout: float | None
    progress: Progress | None
    idempotency_key: str


class Part(StrEnum):
    """Files of a finished job. The last two are there where the scan came as DICOM."""

    MASK = "mask"
    UNCERTAINTY = "uncertainty"
    PREVIEW = "preview"
    SEGMENTATION = "segmentation"
    REPORT = "report"


@dataclass(frozen=True)
class Reason:
    """Why a mask is flagged, or why a job failed: a stable code, and words."""

    code: str
    detail: str


@dataclass(frozen=True)
class Delivery:
    """A result on its way to an archive, or word of the job's end to its webhook."""

    destination: str
    state: str
    attempts: int
    finished: datetime | None
    error: str | None


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job as the service told it last (docs/api.md). From ``verdict`` on, fields are None until it has succeeded.

    ``progress`` is 0 to 1, ``volume_ml`` in ml, ``seconds`` the work on the scan in s. Lists have no ``position`` and
    no ``deliveries``. ``review`` is the decision of a person that holds, if there is one.
    """

    id: str
    state: State
    progress: float
    stage: str
    position: int | None
    created: datetime
    started: datetime | None
    finished: datetime | None
    attempt: int
    model: str
    version: str
    min_dice: float
    alpha: float
    rule: str
    members: int
    seed: int
    series_uid: str | None
    roi: str | None
    priority: str
    destinations: tuple[str, ...]
    webhook: str | None
    error: Reason | None
    links: Mapping[str, str]
    verdict: Verdict | None
    reasons: tuple[Reason, ...] | None
    nqm: float | None
    predicted_dice: float | None
    dice_interval: tuple[float, float] | None
    required_dice: float | None
    pairwise_dice: float | None
    nqm_threshold: float | None
    volume_ml: float | None
    engine: str | None
    seconds: float | None
    stage_seconds: Mapping[str, float] | None
    input_statistics: Mapping[str, float] | None
    warnings: tuple[str, ...] | None
    segments: tuple[Mapping[str, Any], ...] | None
    deliveries: tuple[Delivery, ...] | None
    review: Mapping[str, Any] | None

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state in ENDED

    def check(self) -> None:
        """Raise what keeps it from having a result: `NotFinishedError`, `JobCancelledError`, `JobFailedError`."""
        if self.state == "failed":
            error = self.error or Reason("internal_error", "the job failed")
            raise JobFailedError(error.code, error.detail, job=self.id)
        if self.state == "cancelled":
            raise JobCancelledError("job_cancelled", "the job was cancelled", job=self.id)
        if self.state != "succeeded":
            raise NotFinishedError("job_not_finished", f"the job is {self.state}", job=self.id)


@dataclass(frozen=True)
class ModelVersion:
    """One version of a model; ``usable`` is False where it is damaged."""

    version: str
    usable: bool
    created: datetime | None


@dataclass(frozen=True)
class Model:
    """A model, its versions, and which of them each alias means (None where that file is damaged)."""

    name: str
    versions: tuple[ModelVersion, ...]
    aliases: Mapping[str, str] | None


@dataclass(frozen=True)
class Page:
    """Some jobs, and where the next page begins, if there is one."""

    jobs: tuple[Job, ...]
    before: str | None


def reading(read: Callable[[Any], T], body: object) -> T:
    """``read(body)``.

    Raises:
        NotUnderstoodError: it lacks what is needed.
    """
    try:
        return read(body)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise NotUnderstoodError(f"the answer is not as expected: {type(error).__name__} {error}") from error


def job_from(body: Mapping[str, Any]) -> Job:
    """A job from JSON; fields that this version does not know are passed over."""
    values: dict[str, Any] = {one.name: body.get(one.name) for one in fields(Job)}
    converted = {name: convert(values[name]) for name, convert in _CONVERTERS.items() if values[name] is not None}
    if not IDENTIFIER.fullmatch(body["id"]) or body["state"] not in get_args(State):
        raise ValueError("a job has an id and a state")
    return Job(**(values | converted))


def models_from(body: Mapping[str, Any]) -> tuple[Model, ...]:
    """All models from JSON."""
    return tuple(model_from(one) for one in body["models"])


def model_from(body: Mapping[str, Any]) -> Model:
    """A model from JSON."""
    versions = (ModelVersion(one["version"], one["usable"], _time(one.get("created"))) for one in body["versions"])
    return Model(body["name"], tuple(versions), body.get("aliases"))


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _reason(body: Mapping[str, Any]) -> Reason:
    return Reason(body["code"], body["detail"])


def _delivery(body: Mapping[str, Any]) -> Delivery:
    return Delivery(body["destination"], body["state"], body["attempts"], _time(body["finished"]), body["error"])


def _all(convert: Callable[[Any], Any]) -> Callable[[Any], tuple[Any, ...]]:
    return lambda items: tuple(convert(one) for one in items)


_CONVERTERS: Mapping[str, Callable[[Any], Any]] = {
    "created": _time,
    "started": _time,
    "finished": _time,
    "destinations": tuple,
    "error": _reason,
    "reasons": _all(_reason),
    "dice_interval": tuple,
    "warnings": tuple,
    "segments": tuple,
    "deliveries": _all(_delivery),
}
