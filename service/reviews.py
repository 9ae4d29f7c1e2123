"""/jobs/{id}/reviews: what people say of a mask."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import AwareDatetime, BaseModel, Field, StringConstraints
from starlette.responses import JSONResponse, Response

from jobs.models import NAME_MAX, Review
from jobs.state import Decision
from service.artefacts import check_succeeded
from service.gateway import TheGateway
from service.problems import documented
from service.schemas import time_json

COMMENT_MAX = 4000
"""Longest comment, in characters."""

router = APIRouter(tags=["reviews"])
_AWAY = ("internal_error", "database_unavailable")
Text = Annotated[str, StringConstraints(strip_whitespace=True, pattern=r"^[^\x00]*$")]


class ReviewWish(BaseModel):
    """A decision on a mask, or a comment."""

    decision: Decision
    comment: Text = Field("", max_length=COMMENT_MAX)
    reviewer: Text = Field("", max_length=NAME_MAX, description="The person, in its own words: initials for instance.")


class ReviewView(BaseModel):
    """A review, as it was written down."""

    id: int
    at: AwareDatetime
    client: str = Field(description="Whose key it came with.")
    credential: str = Field(description="Which key or token, as in the audit log.")
    reviewer: str
    decision: Decision
    comment: str


class ReviewList(BaseModel):
    """Reviews, oldest first; the last one that is no comment holds."""

    reviews: list[ReviewView]


@router.get(
    "/jobs/{job_id}/reviews",
    summary="List reviews",
    response_model=ReviewList,
    responses=documented("job_not_found", *_AWAY),
)
def list_reviews(job_id: str, gateway: TheGateway) -> Response:
    """What people have said of the job's mask."""
    gateway.job(job_id)
    return JSONResponse({"reviews": [_json(one) for one in gateway.reviews.of_job(job_id)]})


@router.post(
    "/jobs/{job_id}/reviews",
    status_code=201,
    summary="Review a mask",
    response_model=ReviewView,
    responses=documented(
        "job_not_found", "job_not_finished", "job_cancelled", "invalid_parameter", "malformed_request",
        "body_too_large", "storage_full", *_AWAY,
    ),
)  # fmt: skip
def add_review(job_id: str, wish: ReviewWish, gateway: TheGateway) -> Response:
    """Write down a decision or a comment, with who and when; nobody can change it any more.

    409 where the job has no mask.
    """
    check_succeeded(gateway.job(job_id))
    review = gateway.reviews.add(job_id, wish.decision, comment=wish.comment, reviewer=wish.reviewer)
    if review is None:  # erased meanwhile: 404
        check_succeeded(gateway.job(job_id))
        raise RuntimeError("a job that has succeeded took no review")
    return JSONResponse(_json(review), 201)


def _json(review: Review) -> dict[str, Any]:
    """As `ReviewView`."""
    return {name: getattr(review, name) for name in ReviewView.model_fields} | {"at": time_json(review.at)}
