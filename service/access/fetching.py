"""A provider's keys, fetched over HTTPS."""

from __future__ import annotations

from collections.abc import Callable

import httpx

from ncagate.settings import is_loopback
from service.access.errors import InvalidAccessError

FETCH_S = 5.0
JWKS_BYTES_MAX = 1 << 20


def fetcher(address: str) -> Callable[[], bytes]:
    """What fetches the keys from an address that cannot be listened in on; it raises OSError or ValueError.

    Raises:
        InvalidAccessError: the address is none, or not to be trusted.
    """
    try:
        url = httpx.URL(address)
    except httpx.InvalidURL as error:
        raise InvalidAccessError(f"NCAGATE_OIDC_JWKS: {error}") from None
    if url.scheme != "https" and not (url.scheme == "http" and is_loopback(url.host)):
        raise InvalidAccessError("NCAGATE_OIDC_JWKS: a file, or an address that begins with https://")
    if url.userinfo:
        raise InvalidAccessError("NCAGATE_OIDC_JWKS: an address without a password")
    return lambda: _fetch(url)


def _fetch(url: httpx.URL) -> bytes:
    content = b""
    try:
        with httpx.stream("GET", url, follow_redirects=False, timeout=FETCH_S) as answer:
            if answer.status_code != httpx.codes.OK:
                raise ValueError("the address does not answer with keys")
            for piece in answer.iter_bytes():
                content += piece
                if len(content) > JWKS_BYTES_MAX:
                    raise ValueError("the set of keys is too large")
    except httpx.HTTPError as error:
        raise OSError("the address does not answer") from error
    return content
