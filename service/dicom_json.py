"""The DICOM JSON model (part 18, F.2), as far as the gateway writes it itself."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse, Response

MEDIA_TYPE = "application/dicom+json"


def element(representation: str, *values: Any) -> dict[str, Any]:
    """One element; without values it is empty."""
    return {"vr": representation, "Value": list(values)} if values else {"vr": representation}


def dicom_json(content: Any, *, status: int = 200) -> Response:
    """A response of this media type."""
    return JSONResponse(content, status, media_type=MEDIA_TYPE)
