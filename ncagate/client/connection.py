"""Where the service is, and how it is known: what both drivers open their connections with."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from typing import Any

import httpx

from ncagate.client.errors import SetupError
from ncagate.client.scans import ScanPath

URL = "http://127.0.0.1:8000"
PATIENCE_S = 30.0
"""For how long a request is tried again after a first failure."""


@dataclass(frozen=True, repr=False)
class Connection:
    """Address, key and trust; what is not given is ``NCAGATE_URL`` and ``NCAGATE_KEY``, or this machine and no key.

    `options` raises `SetupError` where one of them is none.

    ``verify``: a file of certificates (PEM) to trust in place of the usual ones, or a context of one's own.
    """

    url: str | None = None
    key: str | None = None
    verify: ScanPath | ssl.SSLContext | None = None

    @cached_property
    def address(self) -> str:
        """Of the service."""
        return self.url or os.environ.get("NCAGATE_URL") or URL

    def options(self) -> dict[str, Any]:
        """For a client of httpx."""
        key = (self.key or os.environ.get("NCAGATE_KEY") or "").strip()
        if not (key.isascii() and key.isprintable()):
            raise SetupError("the key has characters that no key has")  # and is not shown
        return {
            "base_url": self._base(),
            "headers": {"User-Agent": f"ncagate/{version('ncagate')}"}
            | ({"Authorization": f"Bearer {key}"} if key else {}),
            "verify": self._trust(),
            "limits": httpx.Limits(max_connections=None, max_keepalive_connections=20),
        }

    def _base(self) -> httpx.URL:
        try:
            base = httpx.URL(self.address)
        except httpx.InvalidURL as error:
            raise SetupError(f"{self.address!r} is no address: {error}") from error
        if base.scheme not in ("http", "https") or not base.host:
            raise SetupError(f"{self.address!r} is no address of the form https://host:port")
        return base

    def _trust(self) -> ssl.SSLContext:
        if isinstance(self.verify, ssl.SSLContext):
            return self.verify
        if self.verify is not None:
            try:
                return ssl.create_default_context(cafile=self.verify)
            except OSError as error:  # an SSLError is one
                raise SetupError(f"{os.fspath(self.verify)}: no certificates can be read from it") from error
        if self._base().scheme == "http":
            return ssl.SSLContext(
                ssl.PROTOCOL_TLS_CLIENT
            )  # trusts nobody, and is never asked: redirects are not followed
        return httpx.create_ssl_context()
