"""STOW-RS (DICOM part 18, 10.5): an archive stores the objects of a study here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from python_multipart.multipart import parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from pacs.collect import Receipt
from pacs.files import Stored
from pacs.statuses import CANNOT_UNDERSTAND, DUPLICATE, OTHER_STUDY
from service.dicom_json import MEDIA_TYPE, dicom_json, element
from service.errors import Problem
from service.gateway import Gateway, TheGateway
from service.negotiation import accepts
from service.parts import Parts, receive_parts
from service.problems import documented

router = APIRouter(prefix="/dicomweb", tags=["dicomweb"])

SENDER = "dicomweb"
"""The sender of what comes this way, for routes."""

_CONTENT = {MEDIA_TYPE: {"schema": {"type": "object"}}}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "All objects are stored.", "content": _CONTENT},
    202: {"description": "Some are stored; the others are listed with their reasons.", "content": _CONTENT},
    409: {"description": "None is stored; each is listed with its reason.", "content": _CONTENT},
    **documented(
        "malformed_upload", "upload_incomplete", "missing_scan", "not_acceptable", "body_too_large", "too_many_files",
        "unsupported_media_type", "database_unavailable", "storage_full",
    ),
}  # fmt: skip
_OPENAPI = {
    "requestBody": {
        "required": True,
        "content": {
            'multipart/related; type="application/dicom"': {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


@router.post("/studies", summary="Store objects", response_model=None, responses=_RESPONSES, openapi_extra=_OPENAPI)
async def store(request: Request, gateway: TheGateway) -> Response:
    """STOW-RS. A series may come in several requests: it is complete when nothing of it came for `quiet_s` seconds.

    Which model a series goes to is the routing table's to say. What was sent before is stored as before.
    """
    return await _store(request, gateway, study=None)


@router.post(
    "/studies/{study}",
    summary="Store objects of one study",
    response_model=None,
    responses=_RESPONSES,
    openapi_extra=_OPENAPI,
)
async def store_in_study(request: Request, gateway: TheGateway, study: str) -> Response:
    """As `POST /dicomweb/studies`; objects of another study are refused."""
    return await _store(request, gateway, study=study)


async def _store(request: Request, gateway: Gateway, *, study: str | None) -> Response:
    if not accepts(request.headers.get("accept"), MEDIA_TYPE, "application/json"):
        raise Problem("not_acceptable", f"on offer: {MEDIA_TYPE}")
    with gateway.blobs.staging() as folder:
        objects = _Objects(folder, files_max=gateway.settings.files_max)
        await receive_parts(request, objects, media_type=b"multipart/related")
        if not objects.sizes:
            raise Problem("missing_scan", "the body holds no DICOM object")
        staged = sorted(folder.iterdir())
        return await run_in_threadpool(_keep, gateway, staged, study)


class _Objects(Parts):
    """Every part is a DICOM object."""

    def begin(self, headers: Mapping[bytes, bytes]) -> None:
        """Open a file for it."""
        kind, _ = parse_options_header(headers.get(b"content-type", b"application/dicom"))
        if kind != b"application/dicom":  # metadata and bulk data in separate parts are not offered
            raise Problem("unsupported_media_type", "the parts have to be application/dicom")
        self.open_file()


def _keep(gateway: Gateway, staged: list[Path], study: str | None) -> Response:
    receipts = gateway.collection.receive(staged, sender=SENDER, study=study)
    stored = [_reference(one) for one in receipts if one.stored in (Stored.NEW, Stored.SAME)]
    failed = [
        _reference(one) | {"00081197": element("US", reason)}
        for one in receipts
        if (reason := _failure(one)) is not None
    ]
    body = {}
    if stored:
        body["00081199"] = element("SQ", *stored)
    if failed:
        body["00081198"] = element("SQ", *failed)
    return dicom_json(body, status=200 if not failed else 202 if stored else 409)


def _failure(receipt: Receipt) -> int | None:
    """Failure reason, None where it is stored."""
    if receipt.identity is None:
        return CANNOT_UNDERSTAND
    if receipt.stored is None:
        return OTHER_STUDY
    return DUPLICATE if receipt.stored is Stored.OTHER else None


def _reference(receipt: Receipt) -> dict[str, Any]:
    """The item of a response that speaks of an object; empty where it could not be read."""
    if receipt.identity is None:
        return {}
    return {
        "00081150": element("UI", receipt.identity.sop_class),
        "00081155": element("UI", receipt.identity.instance),
    }
