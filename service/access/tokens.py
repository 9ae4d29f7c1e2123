"""Bearer tokens of an OpenID provider: JSON Web Tokens (RFC 7519), checked by PyJWT against the provider's keys."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jwt

from jobs.clients import Client, Scope
from jobs.models import NAME_MAX
from ncagate.settings import Settings
from service.access.errors import InvalidAccessError
from service.errors import Problem

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signatures only: a shared secret, or none, would let whoever knows the public keys sign."""
SCOPE_PREFIX = "ncagate:"
"""`ncagate:submit` in a token's `scope`, `scp` or `roles` is the scope `submit`."""
LEEWAY_S = 30.0
"""How far the clocks of provider and gateway may be apart."""
FRESH_S = 3600.0
"""Keys older than this are fetched again: the provider may have withdrawn one."""
PAUSE_S = 30.0
"""Shortest time between two fetches, however many unknown keys are named."""
TOKEN_BYTES_MAX = 16384

log = logging.getLogger(__name__)


class Tokens:
    """Says whose a token is."""

    def __init__(self, issuer: str, audience: str, keys: KeySet) -> None:
        self._issuer, self._audience, self._keys = issuer, audience, keys

    @classmethod
    def of(cls, settings: Settings) -> Tokens | None:
        """By the settings; None where they name no provider.

        Raises:
            InvalidAccessError: they name one in part, or its keys' address is not to be trusted.
        """
        chosen = (settings.oidc_issuer, settings.oidc_audience, settings.oidc_jwks)
        if not any(chosen):
            return None
        issuer, audience, jwks = chosen
        if issuer is None or audience is None or jwks is None:
            raise InvalidAccessError("NCAGATE_OIDC_ISSUER, NCAGATE_OIDC_AUDIENCE and NCAGATE_OIDC_JWKS go together")
        return cls(issuer, audience, KeySet(_source(jwks)))

    def client(self, token: str) -> Client | None:
        """Whose token this is, None where it is not valid.

        Raises:
            Problem: ``identity_unavailable``, where the provider's keys cannot be had.
        """
        if len(token) > TOKEN_BYTES_MAX:
            return None
        try:
            key = self._keys.find(jwt.get_unverified_header(token).get("kid"))
            if key is None:
                return None
            claims = jwt.decode(
                token,
                key,
                algorithms=ALGORITHMS,
                issuer=self._issuer,
                audience=self._audience,
                leeway=LEEWAY_S,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.PyJWTError as error:
            log.info("a token was refused: %s", type(error).__name__)
            return None
        name = _name(claims["sub"])
        return None if name is None else Client(name, _scopes(claims), "token")


class KeySet:
    """The provider's public keys, from a function that reads them; fetched when they are needed, and kept.

    ``clock`` gives seconds that only grow.
    """

    def __init__(self, read: Callable[[], bytes], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._read, self._clock = read, clock
        self._keys: Mapping[str | None, jwt.PyJWK] = {}
        self._read_at = self._tried_at = float("-inf")
        self._lock = threading.Lock()

    def find(self, key_id: object) -> jwt.PyJWK | None:
        """The key of this identifier; where a token names none, the only one.

        Raises:
            Problem: ``identity_unavailable``.
        """
        if key_id is not None and not isinstance(key_id, str):
            return None
        now = self._clock()
        stale, unknown = now - self._read_at > FRESH_S, key_id is not None and key_id not in self._keys
        if stale or unknown:
            self._renew_once(now, needed=unknown)
        if self._read_at == float("-inf"):
            raise Problem("identity_unavailable", headers={"Retry-After": str(int(PAUSE_S))})
        if key_id is None:
            return next(iter(self._keys.values())) if len(self._keys) == 1 else None
        return self._keys.get(key_id)

    def _renew_once(self, now: float, *, needed: bool) -> None:
        """Fetch the keys unless that was tried just now. Nobody who has keys waits for another one's fetching."""
        never_read = self._read_at == float("-inf")
        if not self._lock.acquire(blocking=never_read):
            if needed:
                raise Problem("identity_unavailable", headers={"Retry-After": "1"})
            return
        try:
            if now - self._tried_at > PAUSE_S:
                self._tried_at = now
                self._renew(now)
        finally:
            self._lock.release()

    def _renew(self, now: float) -> None:
        try:
            self._keys, self._read_at = _parse(self._read()), now
        except (OSError, ValueError, RecursionError, jwt.PyJWTError) as error:
            log.warning("the provider's keys could not be read: %s", type(error).__name__)  # the old ones stay good


def _parse(content: bytes) -> dict[str | None, jwt.PyJWK]:
    """The keys that signatures may be checked by: no secret that was published by mistake, no key for encryption."""
    decoded = json.loads(content)
    if not isinstance(decoded, dict):
        raise ValueError("this is no set of keys")
    found = jwt.PyJWKSet.from_dict(decoded).keys
    keys = {one.key_id: one for one in found if one.algorithm_name in ALGORITHMS and one.public_key_use != "enc"}
    if not keys:
        raise ValueError("there is no key for signatures")
    return keys


def _source(jwks: str) -> Callable[[], bytes]:
    """What reads the keys: a file, or an address that cannot be listened in on."""
    if "://" not in jwks:
        return Path(jwks).read_bytes
    from service.access.fetching import fetcher  # late: an HTTP client takes memory, and few gateways need one

    return fetcher(jwks)


def _name(subject: str) -> str | None:
    """The client's name, None where nobody can be called so: no name of a key has a colon, so the two never meet."""
    if not subject or not subject.isprintable():
        return None
    name = f"oidc:{subject}"
    return name if len(name) <= NAME_MAX else f"oidc:{hashlib.sha256(subject.encode()).hexdigest()[: NAME_MAX - 5]}"


def _scopes(claims: Mapping[str, Any]) -> frozenset[Scope]:
    """What the token allows: from the claims that the usual providers use."""
    named: set[str] = set()
    for claim in ("scope", "scp", "roles"):
        value = claims.get(claim)
        listed = value.split() if isinstance(value, str) else value if isinstance(value, list) else ()
        named |= {one for one in listed if isinstance(one, str)}
    return frozenset(one for one in Scope if SCOPE_PREFIX + one in named)
