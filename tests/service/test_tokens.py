"""Tokens of an OpenID provider: which are taken, where its keys come from, and whose the jobs are."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from jobs.clients import Client, Scope
from ncagate.settings import Settings
from service.access.errors import InvalidAccessError
from service.access.tokens import FRESH_S, JWKS_BYTES_MAX, LEEWAY_S, PAUSE_S, TOKEN_BYTES_MAX, KeySet, Tokens
from service.errors import Problem

ISSUER, AUDIENCE = "https://login.example/realm", "ncagate"
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PRIVATE: dict[str, Any] = {
    "RS256": RSA,
    "PS256": RSA,
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}
"""A provider's keys; their algorithms are their identifiers."""


def public(algorithm: str, **changes: Any) -> dict[str, Any]:
    """The key as a provider publishes it."""
    key = jwt.get_algorithm_by_name(algorithm).to_jwk(PRIVATE[algorithm].public_key(), as_dict=True)
    return {**key, "kid": algorithm, "alg": algorithm, "use": "sig", **changes}


def key_set(*keys: dict[str, Any]) -> bytes:
    return json.dumps({"keys": keys or [public(one) for one in PRIVATE]}).encode()


def claims(**changes: Any) -> dict[str, Any]:
    """What a good token says; what is None is left out."""
    now = time.time()
    all_ = {
        "iss": ISSUER, "aud": AUDIENCE, "sub": "jane", "exp": now + 300, "scope": "openid ncagate:submit ncagate:read",
        **changes,
    }  # fmt: skip
    return {name: value for name, value in all_.items() if value is not None}


def token(algorithm: str = "ES256", *, header: dict[str, Any] | None = None, **changes: Any) -> str:
    payload = json.dumps(claims(**changes)).encode()  # also what PyJWT itself would not say
    return jwt.api_jws.encode(payload, PRIVATE[algorithm], algorithm, {"kid": algorithm, **(header or {})})


def segment(value: Any) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


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


class Provider:
    """Publishes keys over HTTP on this machine, and counts who asks."""

    def __init__(self) -> None:
        self.answer: tuple[int, dict[str, str], bytes] = (200, {}, key_set())
        self.asked: list[str] = []
        self.go_on = threading.Event()
        self.go_on.set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                outer.go_on.wait(10)
                status, headers, body = outer.answer
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class's name
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def close(self) -> None:
        self.go_on.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def provider() -> Iterator[Provider]:
    provider = Provider()
    yield provider
    provider.close()


def by_settings(jwks: str) -> Tokens:
    found = Tokens.of(Settings(oidc_issuer=ISSUER, oidc_audience=AUDIENCE, oidc_jwks=jwks))
    assert found is not None
    return found


class TestSource:
    def test_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "keys.json").write_bytes(key_set())
        assert by_settings(str(tmp_path / "keys.json")).client(token()) is not None

    def test_an_address(self, provider: Provider) -> None:
        tokens = by_settings(f"{provider.url}/keys")
        assert [tokens.client(token(one)) is not None for one in PRIVATE] == [True] * len(PRIVATE)
        assert provider.asked == ["/keys"]

    def test_what_a_token_points_to_is_never_fetched(self, provider: Provider) -> None:
        tokens = by_settings(f"{provider.url}/keys")
        for name in ("jku", "x5u"):
            tokens.client(token(header={name: f"{provider.url}/elsewhere", "kid": "unknown"}))
            assert tokens.client(token(header={name: f"{provider.url}/elsewhere"})) is not None
        assert set(provider.asked) == {"/keys"}

    @pytest.mark.parametrize(
        "answer",
        [
            (302, {"Location": "/elsewhere"}, b""),
            (500, {}, key_set()),
            (404, {}, key_set()),
            (200, {}, b"no keys"),
            (200, {}, b"[]"),
            (200, {}, b'{"keys": []}'),
            (200, {}, b'{"keys": "none"}'),
            (200, {}, b'{"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "ES256"}]}'),
            (200, {}, b"[" * 100_000),
            (200, {}, b"\xff\xfe"),
            (200, {}, b" " * JWKS_BYTES_MAX + key_set()),
            (200, {"Content-Encoding": "gzip"}, key_set()),
        ],
    )
    def test_what_holds_no_keys_is_unavailable(self, provider: Provider, answer: tuple[int, Any, bytes]) -> None:
        provider.answer = answer
        with pytest.raises(Problem) as refusal:
            by_settings(f"{provider.url}/keys").client(token())
        assert (refusal.value.code, refusal.value.status_code) == ("identity_unavailable", 503)
        assert int((refusal.value.headers or {})["Retry-After"]) >= 1
        assert provider.asked == ["/keys"]

    @pytest.mark.parametrize(
        "jwks",
        [
            "http://login.example/keys", "http://10.0.0.1/keys", "http://169.254.169.254/latest/meta-data",
            "http://127.0.0.1.example/keys", "http://localhost@login.example/keys", "ftp://127.0.0.1/keys",
            "file:///etc/passwd", "gopher://127.0.0.1:6379/_", "https://user:secret@login.example/keys", "http:///keys",
            "http://[::1/keys",
        ],
    )  # fmt: skip
    def test_an_address_that_can_be_listened_in_on_is_refused(self, jwks: str) -> None:
        with pytest.raises(InvalidAccessError):
            by_settings(jwks)

    @pytest.mark.parametrize("missing", ["oidc_issuer", "oidc_audience", "oidc_jwks"])
    def test_half_the_settings_are_refused(self, missing: str) -> None:
        whole = {"oidc_issuer": ISSUER, "oidc_audience": AUDIENCE, "oidc_jwks": "keys.json"}
        with pytest.raises(InvalidAccessError):
            Tokens.of(Settings(**{name: value for name, value in whole.items() if name != missing}))  # type: ignore[arg-type]


class Counted:
    """Reads keys that the test may change, and counts how often."""

    def __init__(self) -> None:
        self.times, self.keys = 0, [public("ES256")]
        self.error: Exception | None = None

    def __call__(self) -> bytes:
        self.times += 1
        if self.error is not None:
            raise self.error
        return key_set(*self.keys)


class TestRotation:
    @pytest.fixture
    def source(self) -> Counted:
        return Counted()

    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def keys(self, source: Counted, clock: Clock) -> KeySet:
        return KeySet(source, clock=clock)

    def test_keys_are_read_once_and_again_when_they_are_old(self, keys: KeySet, source: Counted, clock: Clock) -> None:
        for _ in range(3):
            assert keys.find("ES256") is not None
            clock.now += FRESH_S / 3
        assert source.times == 1
        clock.now += 1
        assert keys.find("ES256") is not None
        assert source.times == 2

    def test_a_new_one_is_found_and_an_old_one_ends(self, keys: KeySet, source: Counted, clock: Clock) -> None:
        assert keys.find("ES256") is not None
        source.keys = [public("EdDSA")]
        clock.now += PAUSE_S + 1
        assert keys.find("EdDSA") is not None
        assert keys.find("ES256") is None
        assert source.times == 2

    def test_unknown_ones_cost_one_reading_in_a_while(self, keys: KeySet, source: Counted, clock: Clock) -> None:
        for number in range(100):
            assert keys.find(f"unknown {number}") is None
        assert source.times == 1
        clock.now += PAUSE_S + 1
        assert [keys.find(f"unknown {number}") for number in range(100)] == [None] * 100
        assert source.times == 2

    @pytest.mark.parametrize("error", [OSError(), ValueError(), RecursionError()])
    def test_old_ones_serve_on_while_the_provider_is_away(
        self, keys: KeySet, source: Counted, clock: Clock, error: Exception
    ) -> None:
        assert keys.find("ES256") is not None
        source.error = error
        clock.now += FRESH_S + 1
        assert keys.find("ES256") is not None
        assert keys.find("unknown") is None
        assert source.times == 2

    def test_the_first_ones_are_tried_for_again_after_a_while(
        self, keys: KeySet, source: Counted, clock: Clock
    ) -> None:
        source.error = OSError()
        for _ in range(3):
            with pytest.raises(Problem):
                keys.find("ES256")
        assert source.times == 1
        source.error = None
        clock.now += PAUSE_S + 1
        assert keys.find("ES256") is not None

    def test_known_ones_do_not_wait_for_a_provider_that_hangs(self, provider: Provider) -> None:
        clock = Clock()
        tokens = Tokens(ISSUER, AUDIENCE, KeySet(lambda: httpx.get(provider.url).content, clock=clock))
        assert tokens.client(token()) is not None
        provider.go_on.clear()
        clock.now += PAUSE_S + 1
        other = threading.Thread(target=tokens.client, args=(token(header={"kid": "unknown"}),))
        other.start()
        _until(lambda: len(provider.asked) == 2)
        assert tokens.client(token()) is not None
        with pytest.raises(Problem) as refusal:
            tokens.client(token(header={"kid": "unknown"}))
        assert (refusal.value.code, other.is_alive()) == ("identity_unavailable", True)
        provider.go_on.set()
        other.join()


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10.0
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


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
