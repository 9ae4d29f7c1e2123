"""QIDO-RS and WADO-RS (DICOM part 18, 10.6 and 10.4) over the objects that jobs made: SEG and SR.

The images themselves are not offered: they are the archive's, not ours.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from jobs.archive import PAGE_MAX
from jobs.audit import Action
from jobs.models import DicomObject, Job
from pacs.multipart import related
from service.dicom_json import MEDIA_TYPE, dicom_json, element
from service.errors import Problem
from service.gateway import Gateway, TheGateway
from service.negotiation import accepts
from service.problems import documented

router = APIRouter(prefix="/dicomweb", tags=["dicomweb"])

FILTERS = {
    "StudyInstanceUID": "study_uid",
    "0020000D": "study_uid",
    "SeriesInstanceUID": "series_uid",
    "0020000E": "series_uid",
    "SOPInstanceUID": "sop_instance_uid",
    "00080018": "sop_instance_uid",
    "SOPClassUID": "sop_class_uid",
    "00080016": "sop_class_uid",
    "Modality": "modality",
    "00080060": "modality",
}
"""Attributes that a search may name, and the columns that hold them."""
IGNORED = frozenset({"limit", "offset", "includefield", "fuzzymatching"})
STUDY = (
    "00080020", "00080030", "00080050", "00080090", "00100010", "00100020", "00100030", "00100040", "0020000D",
    "00200010", "00081030",
)  # fmt: skip
SERIES = (*STUDY, "00080060", "0008103E", "0020000E", "00200011")
INSTANCE = (*SERIES, "00080016", "00080018", "00200013")
"""Attributes that a search answers with at each level (DICOM part 18, 10.6.3)."""
GROUP = {"study": ("study_uid",), "series": ("study_uid", "series_uid"), "instance": ("sop_instance_uid",)}
ATTRIBUTES = {"study": STUDY, "series": SERIES, "instance": INSTANCE}
OFFSET_MAX = 2**31 - 1
"""Largest offset of a search; one of more than 63 bits is no number to a database."""

Found = tuple[DicomObject, Job]
_AWAY = documented("not_acceptable", "database_unavailable")
_OBJECTS = {"description": "Attributes of each.", "content": {MEDIA_TYPE: {"schema": {"type": "array"}}}}
_PARTS = {"description": "The objects.", "content": {"multipart/related": {"schema": {"type": "string"}}}}
_FOUND: dict[int | str, dict[str, Any]] = {200: _OBJECTS, **documented("invalid_parameter"), **_AWAY}
_GONE: dict[int | str, dict[str, Any]] = {200: _PARTS, **documented("object_not_found"), **_AWAY}
_GONE_ATTRIBUTES: dict[int | str, dict[str, Any]] = {**_GONE, 200: _OBJECTS}
Accept = Annotated[str | None, Header(include_in_schema=False)]  # OpenAPI ignores it: media types say it
Limit = Annotated[int, Query(ge=1, le=PAGE_MAX)]
Offset = Annotated[int, Query(ge=0, le=OFFSET_MAX)]


@router.get("/studies", summary="Search studies", response_class=Response, response_model=None, responses=_FOUND)
def search_studies(request: Request, gateway: TheGateway, limit: Limit = 100, offset: Offset = 0) -> Response:
    """QIDO-RS: studies that hold results. Searches go by identifier, SOP class and modality."""
    return _search(request, gateway, "study", {}, limit=limit, offset=offset)


@router.get("/series", summary="Search series", response_class=Response, response_model=None, responses=_FOUND)
def search_series(request: Request, gateway: TheGateway, limit: Limit = 100, offset: Offset = 0) -> Response:
    """QIDO-RS: series of results."""
    return _search(request, gateway, "series", {}, limit=limit, offset=offset)


@router.get("/instances", summary="Search instances", response_class=Response, response_model=None, responses=_FOUND)
def search_instances(request: Request, gateway: TheGateway, limit: Limit = 100, offset: Offset = 0) -> Response:
    """QIDO-RS: results."""
    return _search(request, gateway, "instance", {}, limit=limit, offset=offset)


@router.get(
    "/studies/{study}/series",
    summary="Series of a study",
    response_class=Response,
    response_model=None,
    responses=_FOUND,
)
def series_of_study(
    request: Request, gateway: TheGateway, study: str, limit: Limit = 100, offset: Offset = 0
) -> Response:
    """QIDO-RS: series of results in a study."""
    return _search(request, gateway, "series", {"study_uid": study}, limit=limit, offset=offset)


@router.get(
    "/studies/{study}/instances",
    summary="Instances of a study",
    response_class=Response,
    response_model=None,
    responses=_FOUND,
)
def instances_of_study(
    request: Request, gateway: TheGateway, study: str, limit: Limit = 100, offset: Offset = 0
) -> Response:
    """QIDO-RS: results in a study."""
    return _search(request, gateway, "instance", {"study_uid": study}, limit=limit, offset=offset)


@router.get(
    "/studies/{study}/series/{series}/instances",
    summary="Instances of a series",
    response_class=Response,
    response_model=None,
    responses=_FOUND,
)
def instances_of_series(
    request: Request, gateway: TheGateway, study: str, series: str, limit: Limit = 100, offset: Offset = 0
) -> Response:
    """QIDO-RS: results in a series."""
    within = {"study_uid": study, "series_uid": series}
    return _search(request, gateway, "instance", within, limit=limit, offset=offset)


@router.get(
    "/studies/{study}",
    summary="Retrieve a study's results",
    response_class=Response,
    response_model=None,
    responses=_GONE,
)
def study(gateway: TheGateway, study: str, accept: Accept = None) -> Response:
    """WADO-RS: the results in a study, as multipart/related."""
    return _retrieve(gateway, {"study_uid": study}, accept)


@router.get(
    "/studies/{study}/series/{series}",
    summary="Retrieve a series",
    response_class=Response,
    response_model=None,
    responses=_GONE,
)
def series(gateway: TheGateway, study: str, series: str, accept: Accept = None) -> Response:
    """WADO-RS: the results in a series, as multipart/related."""
    return _retrieve(gateway, {"study_uid": study, "series_uid": series}, accept)


@router.get(
    "/studies/{study}/series/{series}/instances/{instance}",
    summary="Retrieve an instance",
    response_class=Response,
    response_model=None,
    responses=_GONE,
)
def instance(gateway: TheGateway, study: str, series: str, instance: str, accept: Accept = None) -> Response:
    """WADO-RS: one result, as multipart/related."""
    return _retrieve(gateway, {"study_uid": study, "series_uid": series, "sop_instance_uid": instance}, accept)


@router.get(
    "/studies/{study}/metadata",
    summary="Metadata of a study",
    response_class=Response,
    response_model=None,
    responses=_GONE_ATTRIBUTES,
)
def study_metadata(gateway: TheGateway, study: str, accept: Accept = None) -> Response:
    """WADO-RS: the results' attributes without their pixels."""
    return _metadata(gateway, {"study_uid": study}, accept)


@router.get(
    "/studies/{study}/series/{series}/metadata",
    summary="Metadata of a series",
    response_class=Response,
    response_model=None,
    responses=_GONE_ATTRIBUTES,
)
def series_metadata(gateway: TheGateway, study: str, series: str, accept: Accept = None) -> Response:
    """WADO-RS: as of a study."""
    return _metadata(gateway, {"study_uid": study, "series_uid": series}, accept)


@router.get(
    "/studies/{study}/series/{series}/instances/{instance}/metadata",
    summary="Metadata of an instance",
    response_class=Response,
    response_model=None,
    responses=_GONE_ATTRIBUTES,
)
def instance_metadata(gateway: TheGateway, study: str, series: str, instance: str, accept: Accept = None) -> Response:
    """WADO-RS: as of a study."""
    return _metadata(gateway, {"study_uid": study, "series_uid": series, "sop_instance_uid": instance}, accept)


def _search(
    request: Request, gateway: Gateway, level: str, within: Mapping[str, str], *, limit: int, offset: int
) -> Response:
    values = {column: [value] for column, value in within.items()}
    gateway.note(Action.READ, "search")  # what is found has names of patients
    for name, value in request.query_params.multi_items():
        if name in FILTERS:
            column, wanted = FILTERS[name], value.split(",")  # a list of identifiers (DICOM part 4, C.2.2.2.2)
            values[column] = [one for one in wanted if one in values.get(column, wanted)]
        elif name not in IGNORED:  # a filter that is passed over would show other patients' results
            raise Problem("invalid_parameter", f"searches go by {', '.join(one for one in FILTERS if one.isalpha())}")
    keys = gateway.objects.groups(GROUP[level], values, limit=limit, offset=offset)
    groups = (gateway.objects.find({**values, **dict(zip(GROUP[level], key, strict=True))}) for key in keys)
    answers = [_answer(gateway, level, group) for group in groups if group]
    return dicom_json([one for one in answers if one is not None])


def _answer(gateway: Gateway, level: str, group: Sequence[Found]) -> dict[str, Any] | None:
    attributes = _attributes(gateway, *group[0])
    if attributes is None:
        return None
    answer = {tag: attributes[tag] for tag in ATTRIBUTES[level] if tag in attributes}
    modalities = sorted({made.modality for made, _ in group})
    if level == "study":
        answer["00080061"] = element("CS", *modalities)
        answer["00201206"] = element("IS", len({made.series_uid for made, _ in group}))
        answer["00201208"] = element("IS", len(group))
    if level == "series":
        answer["00201209"] = element("IS", len(group))
    return answer


def _attributes(gateway: Gateway, made: DicomObject, job: Job) -> dict[str, Any] | None:
    """The object's attributes, as the worker wrote them beside it; None where the files are gone."""
    try:
        content = gateway.blobs.find(job.id, job.attempt, Path(made.file).with_suffix(".json").name)
        attributes: dict[str, Any] | None = None if content is None else json.loads(b"".join(content.chunks()))
    except FileNotFoundError:
        return None
    return attributes


def _metadata(gateway: Gateway, within: Mapping[str, str], accept: str | None) -> Response:
    if not accepts(accept, MEDIA_TYPE, "application/json"):
        raise Problem("not_acceptable", f"on offer: {MEDIA_TYPE}")
    found = [_attributes(gateway, *one) for one in _found(gateway, within)]
    there = [one for one in found if one is not None]
    if not there:
        raise Problem("object_not_found")
    return dicom_json(there)


def _found(gateway: Gateway, within: Mapping[str, str]) -> Sequence[Found]:
    found = gateway.objects.find(within)
    for job_id in dict.fromkeys(job.id for _, job in found):
        gateway.note(Action.READ, job_id)
    return found


def _retrieve(gateway: Gateway, within: Mapping[str, str], accept: str | None) -> Response:
    if not accepts(accept, "multipart/related"):
        raise Problem("not_acceptable", "on offer: multipart/related; type=application/dicom")
    found = [gateway.blobs.find(job.id, job.attempt, made.file) for made, job in _found(gateway, within)]
    there = [one for one in found if one is not None]
    if not there or len(there) < len(found):
        raise Problem("object_not_found")
    media_type, body = related([one.chunks() for one in there])
    return StreamingResponse(body, headers={"Content-Type": media_type})
