"""Tokens of an OpenID provider: which are taken, and whose the jobs are."""

from __future__ import annotations

import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from jobs.clients import Client, Scope
from service.access.tokens import LEEWAY_S, TOKEN_BYTES_MAX, KeySet, Tokens
from tests.service.provider import (
    AUDIENCE,
    ISSUER,
    PRIVATE,
    RSA,
    Provider,
    claims,
    key_set,
    public,
    segment,
    token,
)


@pytest.fixture
def tokens() -> Tokens:
    return Tokens(ISSUER, AUDIENCE, KeySet(key_set))


class TestTaken:
    @pytest.mark.parametrize("algorithm", PRIVATE)
    def test_by_every_kind_of_signature(self, tokens: Tokens, algorithm: str) -> None:
        expected = Client("oidc:jane", frozenset({Scope.SUBMIT, Scope.READ}), "token")
        assert tokens.client(token(algorithm)) == expected

    @pytest.mark.parametrize(
        ("changes", "scopes"),
        [
            ({"scope": "ncagate:read"}, {Scope.READ}),
            ({"scope": None, "scp": ["ncagate:submit"]}, {Scope.SUBMIT}),
            ({"scope": None, "scp": "ncagate:submit"}, {Scope.SUBMIT}),
            ({"scope": None, "roles": ["ncagate:admin", "other"]}, {Scope.ADMIN}),
            ({"scope": "ncagate:read", "roles": ["ncagate:submit"]}, {Scope.READ, Scope.SUBMIT}),
            ({"scope": "submit read admin ncagate:administrator xncagate:read"}, set()),
            ({"scope": None, "roles": [{"name": "ncagate:admin"}, 7, None]}, set()),
            ({"scope": 7, "scp": {"ncagate:admin": True}}, set()),
            ({"scope": None}, set()),
        ],
    )
    def test_with_the_scopes_that_it_names(self, tokens: Tokens, changes: dict[str, Any], scopes: set[Scope]) -> None:
        client = tokens.client(token(**changes))
        assert client is not None
        assert client.scopes == scopes

    def test_for_several_audiences_of_which_we_are_one(self, tokens: Tokens) -> None:
        assert tokens.client(token(aud=["other", AUDIENCE])) is not None

    def test_by_clocks_that_differ_a_little(self, tokens: Tokens) -> None:
        assert tokens.client(token(exp=time.time() - LEEWAY_S / 2)) is not None
        assert tokens.client(token(nbf=time.time() + LEEWAY_S / 2)) is not None

    def test_without_an_identifier_where_there_is_one_key(self) -> None:
        bare = jwt.encode(claims(), PRIVATE["ES256"], "ES256")
        one = Tokens(ISSUER, AUDIENCE, KeySet(lambda: key_set(public("ES256", kid=None))))
        assert one.client(bare) is not None
        assert Tokens(ISSUER, AUDIENCE, KeySet(key_set)).client(bare) is None

    def test_a_subject_is_a_client_of_its_own_however_long(self, tokens: Tokens) -> None:
        names = [tokens.client(token(sub=subject)) for subject in ("a" * 500, "a" * 499 + "b", "ward")]
        assert len({one.name for one in names if one}) == 3
        assert all(one is not None and len(one.name) <= 64 and one.name.startswith("oidc:") for one in names)


class TestRefused:
    @pytest.mark.parametrize(
        "changes",
        [
            {"exp": time.time() - 3600}, {"exp": None}, {"exp": "tomorrow"}, {"exp": float("inf")},
            {"nbf": time.time() + 3600}, {"nbf": float("inf")}, {"iat": time.time() + 3600}, {"iat": float("inf")},
            {"iss": "https://login.example/other"}, {"iss": None}, {"iss": [ISSUER]}, {"iss": ISSUER + "/"},
            {"aud": "other"}, {"aud": None}, {"aud": []}, {"aud": ["other"]}, {"aud": AUDIENCE.upper()},
            {"sub": None}, {"sub": ""}, {"sub": 7}, {"sub": "jane\0"}, {"sub": "a\nb"},
        ],
    )  # fmt: skip
    def test_by_what_it_says(self, tokens: Tokens, changes: dict[str, Any]) -> None:
        assert tokens.client(token(**changes)) is None

    def test_without_a_signature(self, tokens: Tokens) -> None:
        for name in ("none", "None", "NONE", ""):
            for kid in ({}, {"kid": "ES256"}):
                assert tokens.client(f"{segment({'alg': name, **kid})}.{segment(claims())}.") is None

    @pytest.mark.parametrize("kid", ["RS256", "ES256"])
    def test_by_the_public_key_as_a_shared_secret(self, tokens: Tokens, kid: str) -> None:
        pem = PRIVATE[kid].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        signed = f"{segment({'alg': 'HS256', 'kid': kid})}.{segment(claims())}"
        mac = jwt.get_algorithm_by_name("HS256").sign(signed.encode(), pem)
        assert tokens.client(f"{signed}.{segment(mac)}") is None

    @pytest.mark.parametrize("named", ["HS256", "ES256", "RS256"])
    def test_by_a_shared_secret_that_was_published_by_mistake(self, named: str) -> None:
        secret = b"s" * 32
        published = {"kty": "oct", "k": segment(secret), "kid": "shared"}
        tokens = Tokens(ISSUER, AUDIENCE, KeySet(lambda: key_set(published, public("ES256"))))
        signed = f"{segment({'alg': named, 'kid': 'shared'})}.{segment(claims())}"
        mac = jwt.get_algorithm_by_name("HS256").sign(signed.encode(), secret)
        assert tokens.client(f"{signed}.{segment(mac)}") is None

    def test_by_a_key_that_is_for_encryption(self) -> None:
        tokens = Tokens(ISSUER, AUDIENCE, KeySet(lambda: key_set(public("ES256", use="enc"), public("EdDSA"))))
        assert tokens.client(token("ES256")) is None
        assert tokens.client(token("EdDSA")) is not None

    def test_by_another_key_than_it_names(self, tokens: Tokens) -> None:
        stranger = ec.generate_private_key(ec.SECP256R1())
        assert tokens.client(jwt.encode(claims(), stranger, "ES256", {"kid": "ES256"})) is None
        assert tokens.client(jwt.encode(claims(), PRIVATE["ES256"], "ES256", {"kid": "RS256"})) is None
        assert tokens.client(jwt.encode(claims(), RSA, "PS256", {"kid": "RS256"})) is None

    def test_that_was_changed(self, tokens: Tokens) -> None:
        head, body, signature = token().split(".")
        assert tokens.client(f"{head}.{segment(claims(scope='ncagate:admin'))}.{signature}") is None
        assert tokens.client(f"{head}.{body}.{segment(bytes(64))}") is None  # CVE-2022-21449: a signature of zeros

    def test_with_a_key_of_its_own(self, tokens: Tokens) -> None:
        own = jwt.get_algorithm_by_name("ES256").to_jwk(ec.generate_private_key(ec.SECP256R1()), as_dict=True)
        private = jwt.PyJWK(own).key
        for header in ({"jwk": own}, {"jwk": own, "kid": "ES256"}, {"jwk": own, "kid": "own"}):
            assert tokens.client(jwt.encode(claims(), private, "ES256", header)) is None

    @pytest.mark.parametrize(
        "text",
        [
            "", ".", "..", "...", "eyJ", "a.b.c", "é.é.é", "e30.e30.e30",
            f"{segment([])}.{segment({})}.{segment(b'x')}",
            f"{segment({'alg': 'ES256', 'kid': 7})}.{segment({})}.{segment(b'x')}",
            f"{segment({'alg': 'ES256', 'kid': ['ES256']})}.{segment({})}.{segment(b'x')}",
            f"{segment({'alg': ['ES256'], 'kid': 'ES256'})}.{segment({})}.{segment(b'x')}",
            f"{segment({'alg': 'ES256', 'kid': 'ES256', 'crit': ['exp'], 'exp': 1})}.{segment({})}.{segment(b'x')}",
            f"{segment({'alg': 'ES256', 'kid': 'ES256', 'b64': False})}..{segment(b'x')}",
            f"{segment(b'[' * 9000)}.{segment({})}.{segment(b'x')}",
            f"{segment(b'9' * 9000)}.{segment({})}.{segment(b'x')}",
            f"{segment({'alg': 'ES256', 'kid': '../../etc/passwd'})}.{segment({})}.{segment(b'x')}",
        ],
    )  # fmt: skip
    def test_that_is_none(self, tokens: Tokens, text: str) -> None:
        assert tokens.client(text) is None

    def test_that_is_too_long(self, tokens: Tokens) -> None:
        assert tokens.client(token(further="x" * TOKEN_BYTES_MAX)) is None
        assert tokens.client(token(further="x" * (TOKEN_BYTES_MAX // 2))) is not None


class TestGateway:
    @pytest.fixture
    def service(self, serve: Any, broker: Any, provider: Provider) -> Any:
        return serve(redis_url=broker.url, oidc_issuer=ISSUER, oidc_audience=AUDIENCE, oidc_jwks=f"{provider.url}/keys")

    def ask(self, service: Any, method: str, path: str, shown: str | None, **options: Any) -> Any:
        headers = {} if shown is None else {"Authorization": f"Bearer {shown}"}
        return service.client.request(method, path, headers=headers, **options)

    def test_two_subjects_are_two_clients(self, service: Any) -> None:
        scan: dict[str, Any] = {"files": {"scan": b"scan"}, "data": {"model": "tiny"}}
        answer = self.ask(service, "POST", "/segment", token(sub="jane"), **scan)
        assert answer.status_code == 202, answer.text
        job = answer.json()["id"]
        assert self.ask(service, "GET", f"/jobs/{job}", token("RS256", sub="jane")).status_code == 200
        assert self.ask(service, "GET", f"/jobs/{job}", token(sub="joe")).status_code == 404
        assert self.ask(service, "DELETE", f"/jobs/{job}", token(sub="joe")).status_code == 404
        assert self.ask(service, "GET", "/jobs", token(sub="joe")).json()["jobs"] == []
        assert service.gateway.repository.get(job).client == "oidc:jane"

    def test_scopes_are_heeded(self, service: Any) -> None:
        reader = token(scope="ncagate:read")
        assert self.ask(service, "GET", "/jobs", reader).status_code == 200
        assert self.ask(service, "POST", "/segment", reader, files={"scan": b"x"}).status_code == 403
        assert self.ask(service, "GET", "/jobs", token(scope=None)).status_code == 403

    def test_with_a_provider_nobody_comes_in_without(self, service: Any) -> None:
        for shown in (None, "ncg_", "eyJ", token(exp=0), "x" * 60_000):
            assert self.ask(service, "GET", "/jobs", shown).status_code == 401

    def test_a_token_is_no_password(self, service: Any) -> None:
        assert service.client.get("/jobs", auth=("jane", token())).status_code == 401

    def test_without_its_keys_nobody_can_be_known(self, service: Any, provider: Provider) -> None:
        provider.answer = (503, {}, b"")
        answer = self.ask(service, "GET", "/jobs", token())
        assert (answer.status_code, answer.json()["code"]) == (503, "identity_unavailable")
        assert self.ask(service, "GET", "/livez", None).status_code == 200
