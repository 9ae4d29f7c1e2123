"""/jobs: how far a job is, its files, its events, its end."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Header, Query
from starlette.responses import JSONResponse, Response, StreamingResponse

from jobs.audit import Action
from jobs.models import Job
from jobs.repository import PAGE_MAX, JobRepository, cursor
from jobs.state import JobState
from service.artefacts import FILES, POLL_S, REPORT, SCAN_TYPES, SEGMENTATION, artefact, check_succeeded, verdict
from service.artefacts import scan as stored_scan
from service.conditional import unchanged_or
from service.gateway import Gateway, TheGateway
from service.negotiation import FILES as FILE_OF
from service.negotiation import MASKS, REPORTS, Offer, choose
from service.problems import documented
from service.schemas import JobList, JobView, job_json
from service.watch import snapshots

KEEP_ALIVE_S = 15.0
"""A stream of events is never silent for longer, so that proxies keep it open."""
PLACE = r"^[0-9]{1,20}(\.[0-9]{1,20})?-[0-9a-f]{32}$"
"""How a place in the list of jobs is written (`jobs.repository.cursor`)."""

log = logging.getLogger(__name__)
router = APIRouter(tags=["jobs"])
_AWAY = ("internal_error", "database_unavailable")
_NO_FILE = ("job_not_found", "job_not_finished", "job_cancelled", "result_gone", "range_not_satisfiable")


def _file_responses(*names: str) -> dict[int | str, dict[str, Any]]:
    binary = {"schema": {"type": "string", "format": "binary"}}
    found = {
        "description": f"The {names[0]}, its verdict in headers.",
        "content": {FILES[name][1]: binary for name in names},
    }
    return {
        200: found,
        **documented(*_NO_FILE, *_AWAY),
    }


@router.get(
    "/jobs",
    summary="List jobs",
    response_model=JobList,
    responses={304: {"description": "The page is as it was."}, **documented("invalid_parameter", *_AWAY)},
)
def list_jobs(
    gateway: TheGateway,
    state: JobState | None = None,
    limit: Annotated[int, Query(ge=1, le=PAGE_MAX)] = 50,
    before: Annotated[str | None, Query(pattern=PLACE, description="From the `next` link of a page.")] = None,
    if_none_match: Annotated[str | None, Header(include_in_schema=False)] = None,
) -> Response:
    """Jobs, newest first, one page at a time; 304 where `If-None-Match` has the page's `ETag`."""
    jobs = gateway.repository.list(state=state, limit=limit, before=before)
    standing = gateway.reviews.standing([job.id for job in jobs])
    following = None
    if len(jobs) == limit:
        query = {"limit": limit, "before": cursor(jobs[-1])} | ({"state": state.value} if state else {})
        following = f"/jobs?{urlencode(query)}"
    shown = [job_json(job, review=standing.get(job.id)) for job in jobs]
    return unchanged_or(JSONResponse({"jobs": shown, "next": following}), if_none_match)


@router.get(
    "/jobs/{job_id}",
    summary="Show a job",
    response_model=JobView,
    responses=documented("job_not_found", *_AWAY),
)
def show_job(job_id: str, gateway: TheGateway) -> Response:
    """State, progress and place in the queue; once it has succeeded, the verdict and its figures."""
    job = gateway.job(job_id)
    headers = {} if job.finished else {"Retry-After": str(POLL_S)}
    return JSONResponse(_shown(gateway, job), headers=headers)


@router.get(
    "/jobs/{job_id}/mask",
    summary="The mask",
    response_model=None,
    responses={**_file_responses("mask", SEGMENTATION), **documented("not_acceptable")},
)
def mask(
    job_id: str, gateway: TheGateway, accept: Annotated[str | None, Header(include_in_schema=False)] = None
) -> Response:
    """The mask on the scan's own grid: NIfTI, or by `Accept: application/dicom` the DICOM SEG of a DICOM series.

    Where the job failed: 409 with the job's own code.
    """
    name = FILE_OF[choose(accept, MASKS)]
    response = _file(gateway, job_id, name)
    response.headers["Vary"] = "Accept"
    return response


@router.get(
    "/jobs/{job_id}/report",
    summary="The report",
    response_model=None,
    responses={
        200: {
            "description": "The report, its verdict in headers.",
            "model": JobView,
            "content": {Offer.DICOM.value: {"schema": {"type": "string", "format": "binary"}}},
        },
        **documented(*_NO_FILE, "not_acceptable", *_AWAY),
    },
)
def report(
    job_id: str, gateway: TheGateway, accept: Annotated[str | None, Header(include_in_schema=False)] = None
) -> Response:
    """Verdict and figures: JSON as of the job, or by `Accept: application/dicom` a Structured Report (TID 1500).

    409 as for the mask.
    """
    job = gateway.job(job_id)
    if choose(accept, REPORTS) is Offer.JSON:
        check_succeeded(job)
        gateway.note(Action.READ, job_id)
        response: Response = JSONResponse(_shown(gateway, job), headers=verdict(job))
    else:
        response = _file(gateway, job_id, REPORT)
    response.headers["Vary"] = "Accept"
    return response


@router.get(
    "/jobs/{job_id}/uncertainty",
    summary="The uncertainty",
    response_model=None,
    responses=_file_responses("uncertainty"),
)
def uncertainty(job_id: str, gateway: TheGateway) -> Response:
    """The ensemble's standard deviation per voxel as NIfTI; 409 as for the mask."""
    return _file(gateway, job_id, "uncertainty")


@router.get(
    "/jobs/{job_id}/scan",
    summary="The scan",
    response_model=None,
    responses={
        200: {
            "description": "The scan as NIfTI.",
            "content": {one: {"schema": {"type": "string", "format": "binary"}} for one in SCAN_TYPES},
        },
        **documented(*_NO_FILE, *_AWAY),
    },
)
def scan(job_id: str, gateway: TheGateway) -> Response:
    """The scan that was segmented, for viewers: a NIfTI file as it was sent, DICOM as NIfTI; 409 as for the mask."""
    response = stored_scan(gateway.blobs, gateway.job(job_id))
    gateway.note(Action.READ, job_id)
    return response


@router.get("/jobs/{job_id}/preview", summary="The preview", response_model=None, responses=_file_responses("preview"))
def preview(job_id: str, gateway: TheGateway) -> Response:
    """Three planes with mask, uncertainty and verdict as PNG; 409 as for the mask."""
    return _file(gateway, job_id, "preview")


@router.get(
    "/jobs/{job_id}/events",
    summary="Follow a job",
    response_model=None,
    responses={
        200: {
            "description": "Server-sent events: `job` at every change, then `end` (or `erased`).",
            "content": {"text/event-stream": {}},  # of a stream there is no schema before OpenAPI 3.2
        },
        **documented("job_not_found", *_AWAY),
    },
)
def events(job_id: str, gateway: TheGateway) -> Response:
    """The job's changes as they happen; the stream ends with the job."""
    gateway.job(job_id)
    return StreamingResponse(_events(gateway.repository, job_id), media_type="text/event-stream")


@router.delete(
    "/jobs/{job_id}",
    status_code=202,
    summary="Cancel or erase a job",
    response_model=None,
    responses={
        202: {"description": "It is being cancelled, or is cancelled already.", "model": JobView},
        204: {"description": "It was finished; its row and its files are erased."},
        **documented("job_not_found", *_AWAY),
    },
)
def delete_job(job_id: str, gateway: TheGateway) -> Response:
    """Cancel a job that is queued or running; erase one that is finished."""
    if gateway.job(job_id).finished:
        return _erase(gateway, job_id)
    if gateway.repository.request_cancel(job_id) is JobState.CANCELLED:
        log.info("job %s: cancelled", job_id, extra={"state": JobState.CANCELLED.value})
    return JSONResponse(job_json(gateway.job(job_id)), 202)


def _file(gateway: Gateway, job_id: str, name: str) -> Response:
    response = artefact(gateway.blobs, gateway.job(job_id), name)
    gateway.note(Action.READ, job_id)  # before the first byte of it leaves
    return response


def _shown(gateway: Gateway, job: Job) -> dict[str, Any]:
    destined = job.request.destinations or job.request.webhook
    deliveries = gateway.deliveries.of_job(job.id) if destined else ()
    review = gateway.reviews.standing([job.id]).get(job.id)
    return job_json(job, position=gateway.repository.position(job), deliveries=deliveries, review=review)


def _erase(gateway: Gateway, job_id: str) -> Response:
    if not gateway.collection.erase(job_id):
        gateway.job(job_id)  # another request was faster: 404
    return Response(status_code=204)


async def _events(repository: JobRepository, job_id: str) -> AsyncIterator[str]:
    last, spoken = "", time.monotonic()
    async for snapshot in snapshots(repository, job_id):
        if snapshot is None:
            yield f'event: erased\ndata: {{"id": "{job_id}"}}\n\n'
            return
        job, position = snapshot
        data = json.dumps(job_json(job, position=position))
        if data != last:
            last, spoken = data, time.monotonic()
            yield f"event: {'end' if job.finished else 'job'}\ndata: {data}\n\n"
        elif time.monotonic() - spoken > KEEP_ALIVE_S:
            spoken = time.monotonic()
            yield ": still here\n\n"
