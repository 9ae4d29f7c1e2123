"""POST /segment: a scan comes in, a job goes out, or its result where the client cares to wait."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

from fastapi import APIRouter
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from jobs.audit import Action
from jobs.errors import IdempotencyError
from jobs.idempotency import Named, payload_digest
from jobs.models import Job
from jobs.submission import submit
from jobs.wish import Wish
from service.artefacts import POLL_S, artefact
from service.errors import Problem
from service.gateway import Gateway, TheGateway
from service.negotiation import FILES, Offer, choose, preference
from service.problems import documented
from service.schemas import JobView, job_json
from service.uploads import SCAN, receive_upload
from service.watch import wait_finished

router = APIRouter(tags=["segment"])
KEY = re.compile(r"[!-~ ]{1,255}")

_BINARY = {"type": "string", "format": "binary"}
_HEADERS = {
    "Location": {"schema": {"type": "string"}, "description": "`/jobs/{id}`"},
    "NCAgate-Verdict": {"schema": {"enum": ["accept", "flag"]}},
    "NCAgate-NQM": {"schema": {"type": "number"}},
    "NCAgate-Predicted-Dice": {"schema": {"type": "number"}},
    "NCAgate-Reasons": {"schema": {"type": "string"}, "description": "Codes, separated by commas."},
    "NCAgate-Job": {"schema": {"type": "string"}},
}


def _body_schema() -> dict[str, Any]:
    form = Wish.model_json_schema(ref_template="#/components/schemas/{model}")
    del form["$defs"]  # they are those of a job's
    files = {
        "type": "array",
        "items": _BINARY,
        "minItems": 1,
        "description": "A NIfTI file (.nii, .nii.gz), a zip of a DICOM series, or the files of one.",
    }
    return {**form, "properties": {SCAN: files, **form["properties"]}, "required": [SCAN, "model"]}


_OPENAPI = {
    "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _body_schema()}}},
    "parameters": [
        {
            "name": "Prefer",
            "in": "header",
            "schema": {"type": "string"},
            "description": "`wait=N`: answer with the finished job if it takes at most N seconds; "
            "`respond-async`: do not wait (RFC 7240).",
            "examples": {"wait": {"value": "wait=30"}, "async": {"value": "respond-async"}},
        },
        {
            "name": "Idempotency-Key",
            "in": "header",
            "schema": {"type": "string", "minLength": 1, "maxLength": 255},
            "description": "A name for this request, of the client's choice. Sending it again with the same scan and "
            "fields answers with the job of the first time; with others: 422.",
        },
    ],
}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Finished in time: the job (its state may be `failed`), the mask or the preview.",
        "model": JobView,
        "headers": _HEADERS,
        "content": {
            Offer.GZIP.value: {"schema": _BINARY},
            Offer.PNG.value: {"schema": _BINARY},
            Offer.DICOM.value: {"schema": _BINARY},
        },
    },
    202: {
        "description": "Accepted; the job will reach exactly one final state.",
        "model": JobView,
        "headers": {
            "Location": _HEADERS["Location"],
            "Retry-After": {"schema": {"type": "integer"}, "description": "Seconds."},
            "Preference-Applied": {"schema": {"type": "string"}},
        },
    },
    **documented(
        "upload_incomplete", "malformed_upload", "model_not_found", "version_not_found", "not_acceptable",
        "job_cancelled", "body_too_large", "too_many_files", "unsupported_media_type", "missing_scan",
        "empty_file", "unexpected_field", "invalid_parameter", "webhook_refused", "internal_error", "version_corrupt",
        "database_unavailable", "storage_full", "idempotency_key_reused", "upload_too_slow", "too_many_uploads",
        "too_many_jobs", "queue_full",
    ),
}  # fmt: skip


@router.post(
    "/segment",
    status_code=202,
    summary="Segment a scan",
    response_model=None,
    responses=_RESPONSES,
    openapi_extra=_OPENAPI,
)
async def segment(request: Request, gateway: TheGateway) -> Response:
    """Queue a scan for segmentation.

    Answers 202 with the job. With `Prefer: wait=N`, 200 with the finished job if it is finished in time. With
    `Accept: application/gzip` the mask, with `application/dicom` the mask of a DICOM series as DICOM SEG, with
    `image/png` the preview, the verdict in headers; these wait without being asked to, and a scan that turns out
    unusable is then a 422 with the job's own code.
    """
    offer = choose(request.headers.get("accept"))
    wish = preference(request.headers.getlist("prefer"))
    longest = gateway.settings.wait_max_s
    seconds = wish.seconds(longest=longest, default=longest if offer in FILES else 0.0)
    job = await _accept(request, gateway)
    job = await wait_finished(gateway.repository, job, seconds)
    return await run_in_threadpool(_answer, gateway, job, offer, wish.applied(seconds))


async def _accept(request: Request, gateway: Gateway) -> Job:
    settings = gateway.settings
    with gateway.blobs.staging() as folder:
        upload = await receive_upload(request, folder, files_max=settings.files_max)
        return await run_in_threadpool(_submit, gateway, upload.fields, folder, _key(request))


def _submit(gateway: Gateway, fields: Mapping[str, str], folder: Path, key: str | None) -> Job:
    wanted = _form(fields).request(gateway.registry, gateway.settings)
    named = None if key is None else Named(key, payload_digest(fields, folder))
    if named is not None and (job := _before(gateway, named)) is not None:
        return job
    try:
        job = submit(gateway.repository, gateway.blobs, uuid4().hex, staged=folder, request=wanted, named=named)
    except IdempotencyError:  # the same request came twice at the same moment, and the other one was faster
        job = None if named is None else _before(gateway, named)
        if job is None:
            raise
        return job
    gateway.wake()
    return job


def _before(gateway: Gateway, named: Named) -> Job | None:
    """The job that this very request has made before.

    Raises:
        Problem: ``idempotency_key_reused``.
    """
    found = gateway.repository.named(named.key)
    if found is None:
        return None
    job, digest = found
    if digest != named.digest:
        raise Problem("idempotency_key_reused", members={"job": job.id})
    return job


def _key(request: Request) -> str | None:
    """The request's `Idempotency-Key`: printable, no longer than a row has room for."""
    keys = request.headers.getlist("idempotency-key")
    if not keys:
        return None
    if len(keys) > 1 or not KEY.fullmatch(keys[0]):
        raise Problem("invalid_parameter", "Idempotency-Key: one, of 1 to 255 printable ASCII characters")
    return keys[0]


def _form(fields: Mapping[str, str]) -> Wish:
    try:
        return Wish.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        raise Problem("invalid_parameter", f"{first['loc'][0]}: {first['msg']}") from None


def _answer(gateway: Gateway, job: Job, offer: Offer, applied: Mapping[str, str]) -> Response:
    headers = {"Location": f"/jobs/{job.id}", **applied, "Vary": "Accept, Prefer"}
    if not job.finished:
        body = job_json(job, position=gateway.repository.position(job))
        return JSONResponse(body, 202, headers={**headers, "Retry-After": str(POLL_S)})
    if offer in FILES:
        gateway.note(Action.READ, job.id)
        response = artefact(gateway.blobs, job, FILES[offer], failure_status=422)
        response.headers.update({**headers, "Content-Type": offer.value})
        return response
    return JSONResponse(job_json(job), headers=headers)
