"""API keys: a client's secret, of which only the SHA-256 is kept, and certificates that stand for one."""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import ColumnElement, Engine, Update, and_, insert, literal, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from jobs.audit import Action, note
from jobs.clients import Client, Scope
from jobs.database import writing
from jobs.models import ApiKey
from service.access.errors import InvalidCertificateError, InvalidClientNameError, InvalidKeyError, UnknownKeyError

PREFIX = "ncg_"
"""Keys begin with it, so that scanners for secrets find them where they do not belong."""
SECRET_BYTES = 32
GIVEN = re.compile(r"ncg_[A-Za-z0-9_-]{43,200}")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
DAY_S = 86400.0


class KeyRepository:
    """All reading and writing of keys; thread-safe. ``clock`` gives seconds since the epoch."""

    def __init__(self, engine: Engine, *, clock: Callable[[], float] = time.time) -> None:
        self._engine, self._writer, self._clock = engine, writing(engine), clock

    def create(
        self, client: str, scopes: Sequence[Scope], *, by: Client, days: float | None = None
    ) -> tuple[ApiKey, str]:
        """A new key of a client, and its text: this is the only time that anybody sees it.

        Raises:
            InvalidClientNameError: the name is not letters, digits, ``.``, ``_`` and ``-``.
        """
        text = PREFIX + secrets.token_urlsafe(SECRET_BYTES)
        return self._insert(client, scopes, _digest(text), by=by, days=days), text

    def adopt(
        self, client: str, scopes: Sequence[Scope], text: str, *, by: Client, days: float | None = None
    ) -> ApiKey:
        """Take a key that was made elsewhere, by a deployment's script for instance; again changes nothing.

        Raises:
            InvalidClientNameError: as of `create`.
            InvalidKeyError: it is not ``ncg_`` and 43 random characters or more, another client's, or has ended.
        """
        if not GIVEN.fullmatch(text):
            raise InvalidKeyError("a key is `ncg_` and at least 43 letters, digits, '-' and '_', chosen at random")
        with Session(self._engine) as session:
            known = session.scalars(select(ApiKey).where(ApiKey.digest == _digest(text))).one_or_none()
        if known is None:
            return self._insert(client, scopes, _digest(text), by=by, days=None)
        if known.client != client or self.client(text) is None:  # a script that runs again must not revive it
            raise InvalidKeyError("this key is another client's, was revoked or has expired")
        return known

    def register(
        self, client: str, scopes: Sequence[Scope], certificate: Path, *, by: Client, days: float | None = None
    ) -> ApiKey:
        """Let a client certificate (PEM) stand for a key; a proxy shows that its owner has it.

        Raises:
            InvalidClientNameError: as of `create`.
            InvalidCertificateError: the file holds none, or it is registered already.
        """
        try:
            der = x509.load_pem_x509_certificate(certificate.read_bytes()).public_bytes(Encoding.DER)
        except (OSError, ValueError, x509.InvalidVersion) as error:
            raise InvalidCertificateError(f"{certificate} holds no certificate (PEM): {error}") from None
        try:
            return self._insert(client, scopes, _fingerprint(der), by=by, days=days)
        except IntegrityError:
            raise InvalidCertificateError("this certificate is registered already: revoke it first") from None

    def client(self, text: str) -> Client | None:
        """Whose key this is, None where it is unknown, revoked or has expired."""
        return self._valid(_digest(text), "key") if text.startswith(PREFIX) else None

    def certified(self, der: bytes) -> Client | None:
        """Whose certificate this is, as of `client`."""
        return self._valid(_fingerprint(der), "certificate")

    def any(self) -> bool:
        """Whether there ever was a key, be it revoked by now."""
        with self._engine.connect() as connection:
            return connection.scalar(select(ApiKey.id).limit(1)) is not None

    def list(self) -> Sequence[ApiKey]:
        """All keys, revoked ones included, oldest first."""
        with Session(self._engine) as session:
            return session.scalars(select(ApiKey).order_by(ApiKey.created_at, ApiKey.id)).all()

    def revoke(self, key_id: str, *, by: Client) -> ApiKey:
        """End a key for good.

        Raises:
            UnknownKeyError: there is none of this identifier, or it was revoked before.
        """
        now = self._clock()
        change = update(ApiKey).where(ApiKey.id == key_id, ApiKey.revoked_at.is_(None)).values(revoked_at=now)
        with Session(self._writer, expire_on_commit=False) as session, session.begin():
            key = session.scalars(change.returning(ApiKey)).one_or_none()
            if key is None:
                raise UnknownKeyError(f"there is no key {key_id!r} in force: see `ncagate keys list`")
            note(session.connection(), by, Action.KEY_REVOKED, f"{key.client} {key.id}", now)
            return key

    def _insert(self, client: str, scopes: Sequence[Scope], digest: str, *, by: Client, days: float | None) -> ApiKey:
        if not NAME.fullmatch(client):
            raise InvalidClientNameError(f"{client[:80]!r} is no name: up to 63 letters, digits, '.', '_' and '-'")
        now = self._clock()
        row = {
            "id": secrets.token_hex(4),
            "client": client,
            "scopes": " ".join(sorted(set(scopes))),
            "digest": digest,
            "created_at": now,
            "expires_at": None if days is None else now + days * DAY_S,
        }
        with Session(self._writer, expire_on_commit=False) as session, session.begin():
            session.execute(_let_go(digest, now))
            key = session.scalars(insert(ApiKey).returning(ApiKey), [row]).one()
            note(session.connection(), by, Action.KEY_CREATED, f"{key.client} {key.id}", now)
            return key

    def _valid(self, digest: str, kind: str) -> Client | None:
        key = self._by_digest(digest)
        if key is None:
            return None
        scopes = frozenset(Scope(one) for one in key.scopes.split())
        return Client(key.client, scopes, f"{kind} {key.id}")

    def _by_digest(self, digest: str) -> ApiKey | None:
        """The key in force of this digest. Nobody can choose a digest, so how long the search takes tells nothing."""
        query = select(ApiKey).where(ApiKey.digest == digest, _in_force(self._clock()))
        with Session(self._engine) as session:
            return session.scalars(query).one_or_none()


def _in_force(now: float) -> ColumnElement[bool]:
    return and_(ApiKey.revoked_at.is_(None), or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > now))


def _let_go(digest: str, now: float) -> Update:
    """A key that has ended no longer stands for this digest: its certificate may stand for another one."""
    ended = update(ApiKey).where(ApiKey.digest == digest, ~_in_force(now))
    return ended.values(digest=literal("ended ") + ApiKey.id)


def _digest(text: str) -> str:
    """A fast hash does: the secret has 256 random bits, and no list of likely ones helps."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _fingerprint(der: bytes) -> str:
    """Of another kind than `_digest`: a certificate is public, and must not be a key."""
    return hashlib.sha256(b"certificate\0" + der).hexdigest()
