"""STOW-RS as a client (DICOM part 18, 10.5): objects to an archive, as they lie on the disk."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx

from jobs.blobs import FileContent
from pacs.config import StowDestination
from pacs.errors import DeliveryError, RefusedError
from pacs.multipart import related
from pacs.secrets import read_secret
from pacs.statuses import DUPLICATE, passes
from pacs.tls import client_context

ANSWER_BYTES = 1 << 20
"""Most that is read of an answer."""
FAILED_SOP_SEQUENCE, FAILURE_REASON = "00081198", "00081197"


def send_stow(destination: StowDestination, files: Sequence[Path]) -> None:
    """Store objects in one request.

    Raises:
        RefusedError: the archive does not want one of them.
        DeliveryError: it does not answer, or cannot take them now.
    """
    media_type, body = related([FileContent(one).chunks() for one in files])
    headers = {
        "Content-Type": media_type,
        "Accept": "application/dicom+json",
        **_authorization(destination),
    }
    try:
        with (
            httpx.Client(verify=client_context(destination.tls), timeout=destination.timeout_s) as client,
            client.stream(
                "POST",
                f"{destination.url.rstrip('/')}/studies",
                content=body,
                headers=headers,
                auth=_basic(destination),
            ) as answer,
        ):
            _check(answer.status_code, _read(answer))
    except httpx.HTTPError as error:
        raise DeliveryError(f"no answer: {type(error).__name__}") from error


def _basic(destination: StowDestination) -> httpx.BasicAuth | None:
    if destination.username is None or destination.password_file is None:
        return None
    return httpx.BasicAuth(destination.username, read_secret(destination.password_file))


def _authorization(destination: StowDestination) -> dict[str, str]:
    if destination.token_file is None:
        return {}
    return {"Authorization": f"Bearer {read_secret(destination.token_file)}"}


def _read(answer: httpx.Response) -> bytes:
    data = bytearray()
    for chunk in answer.iter_bytes():
        data += chunk
        if len(data) > ANSWER_BYTES:
            break
    return bytes(data)


def _check(status: int, body: bytes) -> None:
    """Raise unless every object is stored."""
    if passes(status):
        raise DeliveryError(f"HTTP {status}")
    reasons = _failures(body) if status in (HTTPStatus.OK, HTTPStatus.ACCEPTED, HTTPStatus.CONFLICT) else None
    if status == HTTPStatus.OK and not reasons:
        return
    if status == HTTPStatus.ACCEPTED and reasons == []:  # stored, with warnings
        return
    if reasons and all(one == DUPLICATE for one in reasons):
        return
    told = "".join(f", failure reason {one:04X}" for one in sorted(set(reasons or ())))
    raise RefusedError(f"HTTP {status}{told}")


def _failures(body: bytes) -> list[int] | None:
    """Failure reasons of the objects that were not stored; None where the answer does not say it in JSON."""
    try:
        answer: Any = httpx.Response(HTTPStatus.OK, content=body).json()
        items = answer.get(FAILED_SOP_SEQUENCE, {}).get("Value", [])
        return [int((one.get(FAILURE_REASON, {}).get("Value") or [0])[0]) for one in items]
    except (ValueError, TypeError, AttributeError, LookupError, ArithmeticError, RecursionError):
        return None
