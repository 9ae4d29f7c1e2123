"""Conditional requests (RFC 9110, 13): what a client has already is not sent again."""

from __future__ import annotations

import hashlib

from starlette.responses import Response


def unchanged_or(response: Response, if_none_match: str | None) -> Response:
    """The response with an `ETag` of its body; without the body, as a 304, where the client has it."""
    etag = f'"{hashlib.sha256(response.body).hexdigest()[:32]}"'
    if etag in (if_none_match or ""):
        return Response(status_code=304, headers={"ETag": etag})
    response.headers["ETag"] = etag
    return response
