"""HTTP by hand: lengths that lie, heads that smuggle, addresses of other hosts; one request stays one request."""

from __future__ import annotations

import gzip
import re
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.service.conftest import Site

PART = b'--b\r\nContent-Disposition: form-data; name="scan"; filename="x"\r\n\r\nscan\r\n'
BODY = PART + b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\ntiny\r\n--b--\r\n'
FORM = "Content-Type: multipart/form-data; boundary=b"
SMUGGLED = b"GET /models HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def shared(serving: Any, shared_redis: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with serving(tmp_path_factory.mktemp("wire"), redis_url=shared_redis.url, body_bytes_max=200_000) as service:
        yield service


@pytest.fixture
def service(shared: Any) -> Iterator[Any]:
    """One gateway that has to live through all of this; it has no job when a test begins."""
    yield shared
    repository = shared.gateway.repository
    for job in repository.list(limit=500):
        repository.request_cancel(job.id)
        shared.gateway.collection.erase(job.id)


def spoken(service: Any, data: bytes, *, end: bool = False) -> bytes:
    """All that the gateway says to these bytes, to its end."""
    with socket.create_connection(("127.0.0.1", service.port)) as raw:
        raw.settimeout(15.0)
        raw.sendall(data)
        if end:
            raw.shutdown(socket.SHUT_WR)
        heard = b""
        try:
            while piece := raw.recv(65536):
                heard += piece
        except ConnectionResetError:
            pass
        return heard


def statuses(heard: bytes) -> list[int]:
    return [int(one) for one in re.findall(rb"HTTP/1\.1 (\d{3}) ", heard)]


def post(*lines: str, body: bytes = BODY, target: str = "/segment", close: bool = True) -> bytes:
    head = [f"POST {target} HTTP/1.1", "Host: 127.0.0.1", FORM, *lines, *(["Connection: close"] if close else [])]
    return ("\r\n".join(head) + "\r\n\r\n").encode("latin-1") + body


def chunked(data: bytes, *, extension: bytes = b"") -> bytes:
    return b"%x%s\r\n%s\r\n0\r\n\r\n" % (len(data), extension, data)


def jobs(service: Any) -> int:
    return len(service.gateway.repository.list(limit=500))


class TestLength:
    def test_an_honest_one_is_taken(self, service: Any) -> None:
        assert statuses(spoken(service, post(f"Content-Length: {len(BODY)}"))) == [202]

    def test_one_that_promises_more_than_comes_leaves_nothing(self, service: Any) -> None:
        assert statuses(spoken(service, post(f"Content-Length: {len(BODY) + 1000}"), end=True)) in ([], [400])
        assert jobs(service) == 0
        assert service.until_clean()

    @pytest.mark.parametrize("cut", [1, 8, 60, len(BODY)])
    def test_one_that_promises_less_makes_no_job_of_the_rest(self, service: Any, cut: int) -> None:
        answers = statuses(spoken(service, post(f"Content-Length: {len(BODY) - cut}")))
        assert answers[:1] == ([202] if cut <= 2 else [400])
        assert len(answers) == 1
        assert jobs(service) == (1 if cut <= 2 else 0)
        assert service.until_clean()

    @pytest.mark.parametrize(
        "lines",
        [
            ["Content-Length: -1"], ["Content-Length: 1e3"], ["Content-Length: 0x10"], ["Content-Length: 1_0"],
            ["Content-Length: +9"], ["Content-Length: \xb2"], ["Content-Length: 9 9"], ["Content-Length:"],
            ["Content-Length: " + "9" * 30], ["Content-Length: 10", "Content-Length: 11"], ["Content-Length: 10, 11"],
            ["Transfer-Encoding: gzip, chunked"], ["Transfer-Encoding: identity"], ["Transfer-Encoding: xchunked"],
            ["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"], ["Transfer-Encoding : chunked"],
            ["Content-Length : 10"], ["Content-Length: 10\0"], ["X: a\0b"], ["X: a\rb"], ["X: a\x08b"], [" X: a"],
            ["X"], [": a"], ["X Y: a"], ["X\0: a"], ["X: " + "a" * 100_000], ["Host: other"],
        ],
    )  # fmt: skip
    def test_a_head_that_can_be_read_in_two_ways_is_refused(self, service: Any, lines: list[str]) -> None:
        answers = statuses(spoken(service, post(*lines) + SMUGGLED))
        assert len(answers) == 1
        assert answers[0] // 100 == 4 or answers[0] == 501
        assert jobs(service) == 0
        assert service.until_clean()

    def test_the_same_length_twice_is_one_length(self, service: Any) -> None:
        length = f"Content-Length: {len(BODY)}"
        assert statuses(spoken(service, post(length, length))) == [202]

    def test_a_length_beside_chunks_smuggles_nothing(self, service: Any) -> None:
        """RFC 9112, 6.3: the chunks decide, and a request that has both may be an attempt at smuggling."""
        for length in (0, 5, len(BODY), len(chunked(BODY)) + len(SMUGGLED)):
            request = post(
                f"Content-Length: {length}", "Transfer-Encoding: chunked", body=chunked(BODY) + SMUGGLED, close=False
            )
            answers = statuses(spoken(service, request))
            assert len(answers) == 1, length
            assert answers[0] in (400, 413)
        assert jobs(service) == 0

    def test_pipelined_requests_are_answered_in_turn(self, service: Any) -> None:
        request = post(f"Content-Length: {len(BODY)}", close=False) + SMUGGLED
        assert statuses(spoken(service, request)) == [202, 200]


class TestEncoding:
    @pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "identity, gzip"])
    def test_a_body_is_never_unpacked(self, service: Any, encoding: str) -> None:
        packed = gzip.compress(BODY + bytes(50_000_000))
        heard = spoken(service, post(f"Content-Length: {len(packed)}", f"Content-Encoding: {encoding}", body=packed))
        assert statuses(heard) == [415]
        assert service.until_clean()


class TestChunks:
    @pytest.mark.parametrize("extension", [b";a=b", b';a="b;c"', b";" + b"x" * 1000])
    def test_an_extension_says_nothing(self, service: Any, extension: bytes) -> None:
        request = post("Transfer-Encoding: chunked", body=chunked(BODY, extension=extension))
        assert statuses(spoken(service, request)) == [202]

    @pytest.mark.parametrize(
        "body",
        [
            b"zz\r\n", b"-1\r\nx\r\n", b"0x5\r\nabcde\r\n0\r\n\r\n", b"5 \0\r\nabcde\r\n",
            b"f" * 40 + b"\r\n", b"5\r\nabcdeXX5\r\nabcde\r\n0\r\n\r\n", b"5;" + b"x" * 200_000,
            b"0\r\nTrailer: " + b"x" * 200_000 + b"\r\n\r\n", b"\r\n", b"",
        ],
    )  # fmt: skip
    def test_what_is_no_chunk_is_refused(self, service: Any, body: bytes) -> None:
        heard = spoken(service, post("Transfer-Encoding: chunked", body=body), end=len(body) < 3)
        assert statuses(heard) in ([], [400], [413]), heard
        assert jobs(service) == 0
        assert service.until_clean()

    def test_very_many_tiny_ones_are_one_body(self, service: Any) -> None:
        body = b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + b"0\r\n\r\n"
        assert statuses(spoken(service, post("Transfer-Encoding: chunked", body=body))) == [202]


class TestHeads:
    @pytest.mark.parametrize(
        "head",
        [
            b"GET /models HTTP/1.1\r\n" + b"X: " + b"a" * 200_000,
            b"GET /models HTTP/1.1\r\n" + b"X: a\r\n" * 50_000,
            b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"GET /models\r\n\r\n",
            b"GET  /models HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
            b"GET /mod els HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
            b"GET /models HTTP/1.1\r\n\r\n",
            b"GET /\xc3\xa9 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        ],
    )
    def test_what_is_none_is_refused(self, service: Any, head: bytes) -> None:
        answers = statuses(spoken(service, head))
        assert answers, head[:40]
        assert all(one // 100 == 4 for one in answers), head[:40]
        assert service.client.get("/livez").status_code == 200

    def test_the_address_of_another_host_is_none_of_ours(self, service: Any) -> None:
        for target in ("http://evil.example/models", "http://127.0.0.1:22/models", "//evil.example/models", "*"):
            heard = spoken(service, f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
            assert statuses(heard) == [404], target
            assert b"location:" not in heard.lower()

    @pytest.mark.parametrize("method", ["CONNECT", "TRACE", "PROPFIND", "GETT"])
    def test_the_gateway_is_no_proxy_and_no_echo(self, service: Any, method: str) -> None:
        request = f"{method} /models HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Secret: canary\r\nConnection: close\r\n\r\n"
        heard = spoken(service, request.encode())
        assert statuses(heard) == [405]
        assert b"canary" not in heard

    def test_an_upgrade_is_not_made(self, service: Any) -> None:
        for wanted in ("websocket", "h2c"):
            lines = f"Upgrade: {wanted}\r\nConnection: Upgrade, close\r\nSec-WebSocket-Key: AAAA\r\n"
            heard = spoken(service, f"GET /models HTTP/1.1\r\nHost: 127.0.0.1\r\n{lines}\r\n".encode())
            assert statuses(heard) == [200]

    @pytest.mark.parametrize("path", ["/segment", "/jobs", "/dicomweb/studies"])
    def test_an_override_of_the_method_is_none(self, service: Any, path: str) -> None:
        for name in ("X-HTTP-Method-Override", "X-Method-Override", "X-HTTP-Method"):
            assert service.client.get(path, headers={name: "DELETE"}).status_code in (200, 405)


@pytest.fixture
def site(serve: Any, broker: Any) -> Any:
    return Site(serve(redis_url=broker.url))


class TestHost:
    """Where keys are asked for any name will do, as no answer repeats it."""

    @pytest.mark.parametrize(
        "host", ["evil.example", "127.0.0.1@evil.example", "127.0.0.1:80@evil.example", "a b", "[::1"]
    )
    def test_no_answer_has_it(self, site: Any, host: str) -> None:
        for path in ("/jobs", "/jobs/", "/models", "/openapi.json", "/docs", "/nothing", "/livez"):
            answer = site.ask(
                "it", "GET", path, headers={"Host": host, "X-Forwarded-Host": host, "X-Original-URL": "/metrics"}
            )
            assert "evil.example" not in answer.text + str(answer.headers), path
            assert answer.status_code in (200, 404)

    def test_a_path_that_climbs_stays_where_it_is(self, site: Any) -> None:
        job = site.submit("ward")
        site.service.finish(job)
        tried = (
            f"/jobs/{job}/../../metrics", "/jobs/%2e%2e/%2e%2e/etc/passwd", "/jobs/..%2f..%2fetc%2fpasswd",
            f"/jobs/{job}%00", f"/jobs/{job}/mask%00", f"/jobs/{job}/mask/../input/0000", f"/jobs/{job}/result-1",
            "/models/..%2f..", "/models/tiny/versions/..%2f..%2f..%2fetc", "/models/%2e%2e/versions/passwd",
            "/dicomweb/studies/..%2f..%2fetc/metadata", "/models/tiny/versions/1.0.0%2fmodel.safetensors",
        )  # fmt: skip
        for path in tried:
            request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {site.texts['other']}\r\n"
            heard = spoken(site.service, f"{request}Connection: close\r\n\r\n".encode())
            assert statuses(heard) in ([404], [422]), path
            assert b"root:" not in heard
