"""An OpenID provider of the tests' own: its keys, its tokens, and how it publishes them."""

from __future__ import annotations

import base64
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

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
