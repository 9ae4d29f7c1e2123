"""/series: what archives have sent, and what became of it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import JSONResponse, Response

from jobs.models import Series
from jobs.state import SeriesState
from pacs.series import PAGE_MAX
from service.gateway import TheGateway
from service.problems import documented
from service.schemas import SeriesList, time_json

router = APIRouter(tags=["dicomweb"])


@router.get(
    "/series",
    summary="List series",
    response_model=SeriesList,
    responses=documented("invalid_parameter", "internal_error", "database_unavailable"),
)
def list_series(
    gateway: TheGateway, state: SeriesState | None = None, limit: Annotated[int, Query(ge=1, le=PAGE_MAX)] = 50
) -> Response:
    """Series that archives have sent here in the last day, those that came last first, and the jobs made of them."""
    found = gateway.collection.series.list(state=state, limit=limit)
    return JSONResponse({"series": [_series_json(one) for one in found]})


def _series_json(series: Series) -> dict[str, Any]:
    return {
        "id": series.id,
        "sender": series.sender,
        "study_uid": series.study_uid,
        "series_uid": series.series_uid,
        "state": series.state.value,
        "received": time_json(series.received_at),
        "route": series.route,
        "job": f"/jobs/{series.job_id}" if series.job_id else None,
        "detail": series.detail,
    }
