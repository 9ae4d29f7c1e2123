"""Every refusal that the gateway itself can make: its code, nothing left behind, and the service goes on."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text

SCAN = {"scan": b"scan"}
TINY = {"model": "tiny"}
PART = b'--b\r\nContent-Disposition: form-data; name="scan"; filename="x"\r\n\r\n'
MULTIPART = {"Content-Type": "multipart/form-data; boundary=b"}


def refused(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The problem, once its shape is checked."""
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert (answer.status_code, problem["status"], problem["code"]) == (status, status, code)
    assert {"type", "title", "detail", "instance"} <= problem.keys()
    return problem


@pytest.fixture(scope="module")
def service(serving: Any, shared_redis: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One gateway, which has to live through all of this."""
    folder = tmp_path_factory.mktemp("bad")
    with serving(folder, redis_url=shared_redis.url, body_bytes_max=200_000, files_max=3) as service:
        yield service


@pytest.fixture(autouse=True)
def unharmed(service: Any) -> Iterator[None]:
    """Whatever a test sent: nothing is left, no job came of it, and the next scan is accepted."""
    before = len(service.gateway.repository.list(limit=500))
    yield
    assert service.until_clean()
    assert len(service.gateway.repository.list(limit=500)) == before
    assert service.submit()


class TestForm:
    @pytest.mark.parametrize(
        ("request_", "status", "code"),
        [
            ({"files": {"file": b"scan"}, "data": TINY}, 422, "unexpected_field"),
            ({"files": SCAN, "data": {**TINY, "colour": "red"}}, 422, "unexpected_field"),
            ({"files": {"model": (None, "tiny")}}, 422, "missing_scan"),
            ({"files": {"scan": b""}, "data": TINY}, 422, "empty_file"),
            ({"files": [("scan", b"x"), ("scan", b"")], "data": TINY}, 422, "empty_file"),
            ({"files": [("scan", b"x")] * 4, "data": TINY}, 413, "too_many_files"),
            ({"files": SCAN, "data": {"model": "brain"}}, 404, "model_not_found"),
            ({"files": SCAN, "data": {"model": "../../etc"}}, 404, "model_not_found"),
            ({"files": SCAN, "data": {**TINY, "version": "9.9.9"}}, 404, "version_not_found"),
            ({"data": TINY}, 415, "unsupported_media_type"),
            ({"json": TINY}, 415, "unsupported_media_type"),
            ({"content": b"scan"}, 415, "unsupported_media_type"),
            ({"content": b"", "headers": {"Content-Type": "multipart/form-data"}}, 400, "malformed_upload"),
            ({"content": b"no boundary at all", "headers": MULTIPART}, 400, "malformed_upload"),
            ({"content": b"--b\r\nContent-Type: x\r\n\r\nx\r\n--b--", "headers": MULTIPART}, 400, "malformed_upload"),
            ({"content": b"--b\r\nX: " + b"a" * 9000, "headers": MULTIPART}, 400, "malformed_upload"),
            ({"content": PART + b"scan", "headers": MULTIPART}, 400, "upload_incomplete"),
            ({"content": PART + b"scan\r\n--b", "headers": MULTIPART}, 400, "upload_incomplete"),
        ],
    )  # fmt: skip
    def test_has_its_own_code(self, service: Any, request_: dict[str, Any], status: int, code: str) -> None:
        refused(service.client.post("/segment", **request_), status, code)

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("min_dice", "0"), ("min_dice", "1"), ("min_dice", "nan"), ("min_dice", "high"),
            ("alpha", "0"), ("alpha", "1"), ("alpha", "nan"), ("alpha", "5%"), ("rule", "coin"), ("rule", ""),
            ("members", "0"), ("members", "51"), ("members", "2.5"),
            ("seed", "-1"), ("seed", str(2**63)), ("seed", "1" * 300), ("model", ""),
            ("series_uid", "Nobody"), ("series_uid", "1." * 33),
            ("roi", ""), ("roi", "1,2,3:4,5,6"), ("roi", "ras:1,2,3:4,5,nan"), ("roi", "voxel:4,4,4:2,2,2"),
        ],
    )  # fmt: skip
    def test_a_parameter_out_of_range_is_named(self, service: Any, field: str, value: str) -> None:
        answer = service.client.post("/segment", files=SCAN, data={**TINY, field: value})
        if field == "model":
            refused(answer, 404, "model_not_found")
        else:
            assert field in refused(answer, 422, "invalid_parameter")["detail"]

    def test_a_missing_model_is_named(self, service: Any) -> None:
        answer = service.client.post("/segment", files=SCAN)
        assert refused(answer, 422, "invalid_parameter")["detail"].startswith("model")

    def test_a_field_given_twice_is_refused(self, service: Any) -> None:
        answer = service.client.post("/segment", files=SCAN, data={"model": ["tiny", "tiny"]})
        refused(answer, 422, "invalid_parameter")

    def test_an_accept_nobody_can_serve(self, service: Any) -> None:
        answer = service.client.post("/segment", files=SCAN, data=TINY, headers={"Accept": "text/html"})
        refused(answer, 406, "not_acceptable")


class TestBudget:
    def test_a_declared_length_over_it_is_refused_unread(self, service: Any) -> None:
        with socket.create_connection(("127.0.0.1", service.port)) as raw:
            head = b"POST /segment HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 999999999\r\n"
            raw.sendall(head + b"Content-Type: multipart/form-data; boundary=b\r\n\r\n")
            raw.settimeout(5.0)
            assert raw.recv(65536).startswith(b"HTTP/1.1 413 ")

    def test_a_large_body_gets_its_answer_and_no_reset(self, service: Any) -> None:
        answer = service.client.post("/segment", files={"scan": b"x" * 5_000_000}, data=TINY)
        refused(answer, 413, "body_too_large")

    def test_an_undeclared_length_is_counted(self, service: Any) -> None:
        def endless() -> Iterator[bytes]:
            yield PART
            yield from [b"x" * 65536] * 40

        refused(service.client.post("/segment", content=endless(), headers=MULTIPART), 413, "body_too_large")

    def test_holds_for_every_route(self, service: Any) -> None:
        answer = service.client.put(
            "/models/tiny/aliases/best",
            content=iter([b" " * 65536] * 8),
            headers={"Content-Type": "application/json"},
        )
        refused(answer, 413, "body_too_large")

    def test_a_body_just_within_it_is_read_to_its_end(self, service: Any) -> None:
        answer = service.client.post("/segment", files={"scan": b"x" * 190_000}, data={"model": "brain"})
        refused(answer, 404, "model_not_found")

    def test_a_refusal_before_the_end_of_the_body_is_readable(self, service: Any) -> None:
        def body() -> Iterator[bytes]:
            yield PART.replace(b"scan", b"file")
            for _ in range(10):
                time.sleep(0.02)
                yield b"x" * 10_000

        refused(service.client.post("/segment", content=body(), headers=MULTIPART), 422, "unexpected_field")


class TestCutOff:
    def test_half_an_upload_leaves_nothing(self, service: Any) -> None:
        head = b"POST /segment HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000\r\n"
        with socket.create_connection(("127.0.0.1", service.port)) as raw:
            raw.sendall(head + b"Content-Type: multipart/form-data; boundary=b\r\n\r\n" + PART + b"x" * 50_000)
            deadline = time.monotonic() + 5.0
            while not service.leftovers() and time.monotonic() < deadline:
                time.sleep(0.01)
            assert service.leftovers(), "the upload has begun"
        assert service.until_clean()


class TestTheMachine:
    @pytest.mark.parametrize("step", ["open", "commit_input"])
    def test_a_full_disk_leaves_nothing(self, service: Any, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
        def full(*arguments: object, **keywords: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(Path if step == "open" else type(service.gateway.blobs), step, full)
        refused(service.client.post("/segment", files=SCAN, data=TINY), 507, "storage_full")
        monkeypatch.undo()

    def test_a_database_that_is_away_is_a_503_and_leaves_nothing(self, service: Any) -> None:
        engine = service.gateway.repository._engine
        with engine.begin() as connection:
            connection.execute(text("ALTER TABLE jobs RENAME TO elsewhere"))
        answer = service.client.post("/segment", files=SCAN, data=TINY)
        with engine.begin() as connection:
            connection.execute(text("ALTER TABLE elsewhere RENAME TO jobs"))
        refused(answer, 503, "database_unavailable")
        assert "Retry-After" in answer.headers

    def test_the_frameworks_own_errors_have_the_same_shape(self, service: Any) -> None:
        refused(service.client.get("/nowhere"), 404, "not_found")
        refused(service.client.patch("/jobs"), 405, "method_not_allowed")
        refused(service.client.get("/jobs", params={"limit": "many"}), 422, "invalid_parameter")
