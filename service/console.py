"""/console: the review page, built from `console/` and kept beside this module; a program without data."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.access.middleware import CONSOLE
from service.errors import Problem

FOLDER = Path(__file__).parent / "page"
INDEX = "index.html"
ASSETS = "assets/"
"""What lies in here has a hash of its content in its name."""
FOR_EVER = "public, max-age=31536000, immutable"
ASK_AGAIN = "no-cache"
HEADERS = {
    "Content-Security-Policy": "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self' blob: data:",  # the viewer's font is a picture in its script; the preview is a blob
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",  # no text becomes markup or program
        )
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
}
"""What the page may do: run its own scripts and speak with its own gateway, and nothing else; nobody may frame it."""
MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True)
class Asset:
    """A file of the page, plain and packed."""

    plain: bytes
    packed: bytes
    media_type: str
    etag: str


@router.get(CONSOLE)
@router.get(CONSOLE + "/")
def index(request: Request) -> Response:
    """The page."""
    return _answer(request, INDEX)


@router.get(CONSOLE + "/{path:path}")
def file(path: str, request: Request) -> Response:
    """A file of the page."""
    return _answer(request, path)


def _answer(request: Request, path: str) -> Response:
    asset = assets().get(path)
    if asset is None:
        raise Problem("not_found")
    headers = {
        **HEADERS,
        "ETag": asset.etag,
        "Vary": "Accept-Encoding",
        "Cache-Control": FOR_EVER if path.startswith(ASSETS) else ASK_AGAIN,
    }
    if asset.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(asset.packed, headers={**headers, "Content-Encoding": "gzip"}, media_type=asset.media_type)
    return Response(asset.plain, headers=headers, media_type=asset.media_type)


@lru_cache(maxsize=1)
def assets() -> dict[str, Asset]:
    """Every file of the page by its path, read and packed once: what is not in it cannot be asked for."""
    files = (path for path in sorted(FOLDER.rglob("*")) if path.is_file())
    return {str(path.relative_to(FOLDER)): _asset(path) for path in files}


def _asset(path: Path) -> Asset:
    plain = path.read_bytes()
    etag = f'"{hashlib.sha256(plain).hexdigest()[:32]}"'
    return Asset(plain, gzip.compress(plain, mtime=0), MEDIA_TYPES[path.suffix], etag)
