"""Who a request is from: a key, a token, a certificate that a proxy has checked, or this machine."""

from __future__ import annotations

import base64
import binascii
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from threading import Lock
from urllib.parse import unquote, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import Engine
from starlette.datastructures import Headers

from jobs.clients import NOBODY, Client
from ncagate.settings import Settings, is_loopback
from service.access.errors import InvalidAccessError
from service.access.keys import PREFIX, KeyRepository
from service.access.tokens import Tokens
from service.errors import Problem

CACHED_S = 1.0
"""For how long a key that was good is not looked up again, and so how long a revoked one may go on."""
CACHED_MAX = 1024
CHALLENGE = {"WWW-Authenticate": 'Bearer realm="ncagate", Basic realm="ncagate", charset="UTF-8"'}
FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")
"""What a proxy adds: a request that has one is not from this machine, wherever its connection comes from."""

Network = IPv4Network | IPv6Network


class Door:
    """Knows clients. Thread-safe; everything it does may touch the database.

    Raises:
        InvalidAccessError: the settings contradict one another.
    """

    def __init__(self, settings: Settings, engine: Engine, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._keys = KeyRepository(engine)
        self._tokens = Tokens.of(settings)
        self._proxies, self._header = _proxies(settings), settings.proxy_certificate_header
        self._may_be_open = settings.access == "auto" and is_loopback(settings.host) and self._tokens is None
        self._clock = clock
        self._known: OrderedDict[str, tuple[float, Client]] = OrderedDict()
        self._lock = Lock()
        self._open_until = float("-inf")

    def remembered(self, headers: Headers) -> Client | None:
        """Who it is where that needs no database: a key that was good a moment ago."""
        given = headers.getlist("authorization")
        scheme, _, text = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        return self._recent(text.strip()) if scheme.lower() == "bearer" else None

    def identify(self, headers: Headers, *, peer: str) -> Client:
        """Who sent a request with these headers over a connection from the address ``peer``.

        Raises:
            Problem: ``unauthenticated``, ``not_local`` or ``identity_unavailable``.
        """
        given = headers.getlist("authorization")
        if not all(_empty(one) for one in given):
            client = self._by_authorization(given)
            if client is None:
                raise Problem("unauthenticated", "the key is unknown, revoked or has expired", headers=CHALLENGE)
            return client
        if self._header is not None and self._header in headers and _within(peer, self._proxies):
            client = self._keys.certified(_certificate(headers.getlist(self._header)))
            if client is None:
                raise Problem("unauthenticated", "the certificate is unknown, revoked or has expired")
            return client
        if not self._open():
            raise Problem("unauthenticated", headers=CHALLENGE)
        _check_local(headers)
        return NOBODY

    def lacks_keys(self) -> bool:
        """Whether nobody can come in yet."""
        return not self._may_be_open and self._tokens is None and not self._keys.any()

    def _by_authorization(self, values: Sequence[str]) -> Client | None:
        if len(values) != 1:  # a proxy may have looked at the other one
            return None
        scheme, _, text = values[0].partition(" ")
        text = text.strip()
        if scheme.lower() == "basic":
            text = _password(text)
        elif scheme.lower() != "bearer":
            return None
        if text.startswith(PREFIX):
            return self._by_key(text)
        return self._tokens.client(text) if self._tokens is not None and scheme.lower() == "bearer" else None

    def _by_key(self, text: str) -> Client | None:
        if (client := self._recent(text)) is not None:
            return client
        found = self._keys.client(text)
        if found is not None:  # those that are not good are not kept: anybody could fill the memory with them
            with self._lock:
                self._known[text] = (self._clock() + CACHED_S, found)
                if len(self._known) > CACHED_MAX:
                    self._known.popitem(last=False)
        return found

    def _recent(self, text: str) -> Client | None:
        with self._lock:
            until, client = self._known.get(text, (float("-inf"), NOBODY))
        return client if self._clock() < until else None

    def _open(self) -> bool:
        """Whether nobody needs a key: until the first one is made, where only this machine can ask."""
        if not self._may_be_open:
            return False
        if self._clock() >= self._open_until:
            if self._keys.any():
                self._may_be_open = False
                return False
            self._open_until = self._clock() + CACHED_S
        return True


def _check_local(headers: Headers) -> None:
    """Refuse what a proxy passes on, and what a web page of elsewhere makes this machine's browser send.

    A page whose name is made to mean 127.0.0.1 (DNS rebinding) is known by its name in Host, another one by Origin.
    """
    if any(name in headers for name in FORWARDED):
        raise Problem("not_local", "the request came through a proxy: make a key with `ncagate keys create`")
    if not is_loopback(_host(f"//{headers.get('host', '')}")):
        raise Problem("not_local", "the request names another host than this machine")
    origin = headers.get("origin")
    if origin is not None and not is_loopback(_host(origin)):
        raise Problem("not_local", "the request is from a page of another host")


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _empty(authorization: str) -> bool:
    """Whether there is no credential: none at all, or the empty password that archives send where none is set."""
    scheme, _, text = authorization.partition(" ")
    return not scheme or (scheme.lower() == "basic" and _decoded(text).endswith(":"))


def _password(encoded: str) -> str:
    """The password of a Basic credential (RFC 7617): archives and Prometheus send keys so; the user name is free."""
    return _decoded(encoded).partition(":")[2]


def _decoded(encoded: str) -> str:
    try:
        return base64.b64decode(encoded.strip(), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""


def _certificate(values: Sequence[str]) -> bytes:
    """DER of a certificate as proxies hand it on: RFC 9440 (``:base64:``), or PEM, percent-encoded (nginx).

    Of two of them one is not the proxy's.
    """
    if len(values) != 1:
        return b""
    try:
        if values[0].startswith(":"):
            return base64.b64decode(values[0].strip(":"), validate=True)
        pem = unquote(values[0]).replace("\t", "\n").encode()
        return x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
    except (ValueError, x509.InvalidVersion):
        return b""


def _within(peer: str, networks: Sequence[Network]) -> bool:
    try:
        address = ip_address(peer)
    except ValueError:
        return False
    return any(address in one for one in networks)


def _proxies(settings: Settings) -> tuple[Network, ...]:
    named = [one.strip() for one in (settings.proxy_addresses or "").split(",") if one.strip()]
    try:
        networks = tuple(ip_network(one) for one in named)
    except ValueError as error:
        raise InvalidAccessError(f"NCAGATE_PROXY_ADDRESSES: {error}") from None
    if any(one.prefixlen == 0 for one in networks):
        raise InvalidAccessError("NCAGATE_PROXY_ADDRESSES: certificates are public, and anybody could show one")
    if bool(networks) != bool(settings.proxy_certificate_header):
        raise InvalidAccessError("NCAGATE_PROXY_CERTIFICATE_HEADER and NCAGATE_PROXY_ADDRESSES go together")
    return networks
