"""The keys of an OpenID provider: where they come from, and when they are read again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from ncagate.settings import Settings
from service.access.errors import InvalidAccessError
from service.access.fetching import JWKS_BYTES_MAX
from service.access.tokens import FRESH_S, PAUSE_S, KeySet, Tokens
from service.errors import Problem
from tests.service.provider import (
    AUDIENCE,
    ISSUER,
    PRIVATE,
    Clock,
    Provider,
    key_set,
    public,
    token,
)


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
