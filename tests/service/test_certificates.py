"""Client certificates that a proxy has checked and hands on in a header."""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from sqlalchemy import Engine, create_engine

from jobs.clients import NOBODY, Scope
from jobs.database import open_database, upgrade
from ncagate.settings import Settings
from service.access.door import Door
from service.access.errors import InvalidAccessError, InvalidCertificateError
from service.access.keys import KeyRepository

HEADER = "Client-Cert"


def certificate(name: str = "scanner") -> x509.Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )


def rfc9440(one: x509.Certificate) -> str:
    return f":{base64.b64encode(one.public_bytes(Encoding.DER)).decode()}:"


def encoded_pem(one: x509.Certificate) -> str:
    return quote(one.public_bytes(Encoding.PEM).decode())


FORMS: dict[str, Callable[[x509.Certificate], str]] = {"RFC 9440": rfc9440, "nginx": encoded_pem}
ONE = certificate()


@pytest.fixture
def proxied(serve: Any, broker: Any) -> Any:
    """A gateway that takes this machine for its proxy."""
    return serve(redis_url=broker.url, proxy_addresses="127.0.0.1,10.0.0.0/8", proxy_certificate_header=HEADER)


@pytest.fixture
def registered(tmp_path: Path) -> Path:
    path = tmp_path / "certificate.pem"
    path.write_bytes(ONE.public_bytes(Encoding.PEM))
    return path


def keys_of(service: Any) -> KeyRepository:
    return KeyRepository(service.gateway.repository.engine)


class TestFromTheProxy:
    @pytest.mark.parametrize("form", FORMS)
    def test_its_owner_comes_in_with_its_scopes(self, proxied: Any, registered: Path, form: str) -> None:
        keys_of(proxied).register("scanner", [Scope.SUBMIT], registered, by=NOBODY)
        headers = {HEADER: FORMS[form](ONE)}
        answer = proxied.client.post("/segment", files={"scan": b"x"}, data={"model": "tiny"}, headers=headers)
        assert answer.status_code == 202, answer.text
        assert proxied.gateway.repository.get(answer.json()["id"]).client == "scanner"
        assert proxied.client.get("/jobs", headers=headers).status_code == 403

    @pytest.mark.parametrize("form", FORMS)
    def test_an_unknown_one_is_refused(self, proxied: Any, registered: Path, form: str) -> None:
        keys_of(proxied).register("scanner", [Scope.READ], registered, by=NOBODY)
        answer = proxied.client.get("/jobs", headers={HEADER: FORMS[form](certificate())})
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")

    def test_a_revoked_and_an_expired_one_are_refused(self, proxied: Any, registered: Path) -> None:
        keys, headers = keys_of(proxied), {HEADER: rfc9440(ONE)}
        key = keys.register("scanner", [Scope.READ], registered, by=NOBODY)
        assert proxied.client.get("/jobs", headers=headers).status_code == 200
        keys.revoke(key.id, by=NOBODY)
        assert proxied.client.get("/jobs", headers=headers).status_code == 401

    @pytest.mark.parametrize(
        "value",
        [
            "", ":", "::", ":%%%:", "none", "%", "%00", "\xff", rfc9440(ONE)[:-9] + ":", encoded_pem(ONE)[:-40],
            encoded_pem(ONE).replace("CERTIFICATE", "PRIVATE%20KEY"), "-----BEGIN%20CERTIFICATE-----",
        ],
    )  # fmt: skip
    def test_what_is_none_is_refused(self, proxied: Any, registered: Path, value: str) -> None:
        keys_of(proxied).register("scanner", [Scope.READ], registered, by=NOBODY)
        answer = proxied.client.get("/jobs", headers=[(HEADER.encode(), value.encode("latin-1"))])
        assert answer.status_code == 401

    def test_of_a_version_that_does_not_exist_is_refused(self, proxied: Any, registered: Path) -> None:
        keys_of(proxied).register("scanner", [Scope.READ], registered, by=NOBODY)
        der = bytearray(ONE.public_bytes(Encoding.DER))
        der[der.index(b"\xa0\x03\x02\x01\x02") + 4] = 9
        pem = f"-----BEGIN CERTIFICATE-----\n{base64.encodebytes(der).decode()}-----END CERTIFICATE-----\n"
        assert proxied.client.get("/jobs", headers={HEADER: quote(pem)}).status_code == 401

    def test_two_of_them_are_not_chosen_from(self, proxied: Any, registered: Path) -> None:
        keys_of(proxied).register("scanner", [Scope.READ], registered, by=NOBODY)
        for pair in ([ONE, certificate()], [certificate(), ONE], [ONE, ONE]):
            headers = [(HEADER, rfc9440(one)) for one in pair]
            assert proxied.client.get("/jobs", headers=headers).status_code == 401

    def test_a_wrong_key_beside_it_is_refused(self, proxied: Any, registered: Path) -> None:
        keys_of(proxied).register("scanner", [Scope.READ], registered, by=NOBODY)
        headers = {HEADER: rfc9440(ONE), "Authorization": "Bearer ncg_x"}
        assert proxied.client.get("/jobs", headers=headers).status_code == 401


class TestFromElsewhere:
    @pytest.mark.parametrize("settings", [{}, {"proxy_addresses": "10.0.0.0/8", "proxy_certificate_header": HEADER}])
    def test_the_header_says_nothing(self, serve: Any, broker: Any, registered: Path, settings: dict[str, str]) -> None:
        service = serve(redis_url=broker.url, **settings)
        keys_of(service).register("scanner", [Scope.READ], registered, by=NOBODY)
        assert service.client.get("/jobs", headers={HEADER: rfc9440(ONE)}).status_code == 401

    def test_a_forwarded_address_is_nobodys(self, serve: Any, broker: Any, registered: Path) -> None:
        service = serve(redis_url=broker.url, proxy_addresses="10.0.0.1", proxy_certificate_header=HEADER)
        keys_of(service).register("scanner", [Scope.READ], registered, by=NOBODY)
        headers = {HEADER: rfc9440(ONE), "X-Forwarded-For": "10.0.0.1", "Forwarded": "for=10.0.0.1"}
        assert service.client.get("/jobs", headers=headers).status_code == 401

    def test_a_certificate_is_public_and_no_key(self, proxied: Any, registered: Path) -> None:
        keys_of(proxied).register("scanner", [Scope.READ], registered, by=NOBODY)
        der, pem = ONE.public_bytes(Encoding.DER), ONE.public_bytes(Encoding.PEM)
        base = base64.b64encode(der).decode()
        shown = [
            base,
            f"ncg_{base}",
            rfc9440(ONE),
            f"ncg_{rfc9440(ONE)}",
            quote(pem),
            ONE.fingerprint(hashes.SHA256()).hex(),
        ]
        pairs = [base64.b64encode(b":" + one).decode() for one in (der, b"ncg_" + der, pem, base.encode())]
        raw = [b"Bearer " + der.replace(b"\n", b"").replace(b"\r", b"").replace(b"\0", b"")]
        headers = [*(f"Bearer {one}".encode() for one in shown), *(f"Basic {one}".encode() for one in pairs), *raw]
        for value in headers:
            if b"\x7f" not in value and all(byte > 31 for byte in value):
                assert proxied.client.get("/jobs", headers=[(b"Authorization", value)]).status_code == 401


class TestSettings:
    @pytest.mark.parametrize(
        "settings",
        [
            {"proxy_addresses": "10.0.0.1"},
            {"proxy_certificate_header": HEADER},
            {"proxy_addresses": " , ", "proxy_certificate_header": HEADER},
            {"proxy_addresses": "proxy.example", "proxy_certificate_header": HEADER},
            {"proxy_addresses": "10.0.0.1/8", "proxy_certificate_header": HEADER},
            {"proxy_addresses": "10.0.0.1;10.0.0.2", "proxy_certificate_header": HEADER},
            {"proxy_addresses": "0.0.0.0/0", "proxy_certificate_header": HEADER},
            {"proxy_addresses": "10.0.0.1,::/0", "proxy_certificate_header": HEADER},
        ],
    )
    def test_that_contradict_one_another_are_refused_at_the_start(self, settings: dict[str, str]) -> None:
        with pytest.raises(InvalidAccessError):
            Door(Settings(**settings), create_engine("sqlite://"))  # type: ignore[arg-type]


class TestRegistering:
    @pytest.fixture
    def engine(self, tmp_path: Path) -> Engine:
        engine = open_database(f"sqlite:///{tmp_path / 'jobs.db'}")
        upgrade(engine)
        return engine

    def test_one_stands_for_one_key_at_a_time(self, engine: Engine, registered: Path) -> None:
        keys = KeyRepository(engine)
        key = keys.register("scanner", [Scope.READ], registered, by=NOBODY)
        with pytest.raises(InvalidCertificateError):
            keys.register("other", [Scope.ADMIN], registered, by=NOBODY)
        keys.revoke(key.id, by=NOBODY)
        again = keys.register("other", [Scope.ADMIN], registered, by=NOBODY)
        found = keys.certified(ONE.public_bytes(Encoding.DER))
        assert found is not None
        assert (found.name, found.credential) == ("other", f"certificate {again.id}")
        engine.dispose()

    def test_what_holds_none_is_refused(self, engine: Engine, tmp_path: Path) -> None:
        for content in (None, b"", b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"):
            path = tmp_path / "file.pem"
            path.unlink(missing_ok=True)
            if content is not None:
                path.write_bytes(content)
            with pytest.raises(InvalidCertificateError):
                KeyRepository(engine).register("scanner", [Scope.READ], path, by=NOBODY)
        engine.dispose()
