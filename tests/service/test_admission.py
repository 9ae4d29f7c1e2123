"""What the gateway takes on: how much a second and at once of a client, and no more than there is room for."""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from jobs.clients import NOBODY, Scope
from service import limits
from service.access.keys import KeyRepository
from service.admission import Admission

FORM = "Content-Type: multipart/form-data; boundary=b\r\n"
PART = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\ntiny\r\n'
FILE = b'--b\r\nContent-Disposition: form-data; name="scan"; filename="x"\r\n\r\nscan'
END = b"\r\n--b--\r\n"


class Raw:
    """Requests of a client, byte by byte."""

    def __init__(self, service: Any) -> None:
        self.service = service
        keys = KeyRepository(service.gateway.repository.engine)
        self.texts = {one: keys.create(one, [Scope.SUBMIT, Scope.READ], by=NOBODY)[1] for one in ("ward", "other")}

    def head(self, who: str, *lines: str, path: str = "/segment") -> bytes:
        further = "".join(f"{line}\r\n" for line in lines)
        return (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {self.texts[who]}\r\n{FORM}{further}\r\n"
        ).encode()

    def open(self, data: bytes) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.service.port))
        connection.settimeout(10.0)
        connection.sendall(data)
        return connection

    def expecting(self, who: str, *lines: str, path: str = "/segment") -> str:
        """What a client hears that asks before it sends its body, and sends none."""
        lines = (*(lines or ("Content-Length: 1000",)), "Expect: 100-continue")
        with self.open(self.head(who, *lines, path=path)) as connection:
            return answered(connection)

    def begun(self, who: str, length: int = 1000) -> socket.socket:
        """An upload that the gateway has begun to read, and that does not end."""
        lines = (f"Content-Length: {length}", "Expect: 100-continue")
        connection = self.open(self.head(who, *lines))
        assert connection.recv(65536).startswith(b"HTTP/1.1 100 ")
        connection.sendall(PART)
        return connection

    def get(self, who: str, path: str = "/jobs", **headers: str) -> Any:
        return self.service.client.get(path, headers={"Authorization": f"Bearer {self.texts[who]}", **headers})

    def submit(self, who: str, **headers: str) -> Any:
        return self.service.client.post(
            "/segment",
            files={"scan": b"scan"},
            data={"model": "tiny"},
            headers={"Authorization": f"Bearer {self.texts[who]}", **headers},
        )


@pytest.fixture
def raw(serve: Any, broker: Any) -> Callable[..., Raw]:
    return lambda **settings: Raw(serve(redis_url=broker.url, **settings))


@pytest.fixture
def counters(monkeypatch: pytest.MonkeyPatch) -> Callable[[], tuple[dict[str, int], int]]:
    """What the gateway's admission counts at the moment."""
    made: list[Admission] = []
    begin = Admission.__init__

    def spy(self: Admission, *arguments: Any, **options: Any) -> None:
        begin(self, *arguments, **options)
        made.append(self)

    monkeypatch.setattr(Admission, "__init__", spy)
    return lambda: (dict(made[-1]._uploads), made[-1]._incoming)


def until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def answered(connection: socket.socket) -> str:
    """The answer, whose body is JSON."""
    answer = ""
    while not answer.endswith("}"):
        data = connection.recv(65536)
        assert data, answer
        answer += data.decode()
    return answer


def problem(answer: str, status: int, code: str) -> None:
    head, _, body = answer.partition("\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} "), answer
    assert f'"code":"{code}"' in body
    assert "retry-after: " in head.lower()


class TestRate:
    def test_too_many_requests_are_told_when_to_come_again(self, raw: Callable[..., Raw]) -> None:
        site = raw(client_rate_max=0.5)
        answers = [site.get("ward") for _ in range(12)]
        refused = [one for one in answers if one.status_code == 429]
        assert len(refused) >= 6
        assert all(one.json()["code"] == "rate_limited" and int(one.headers["Retry-After"]) >= 1 for one in refused)
        assert site.get("other").status_code == 200
        assert site.get("ward", path="/livez").status_code == 200

    def test_before_a_byte_of_the_body(self, raw: Callable[..., Raw]) -> None:
        site = raw(client_rate_max=0.01)
        assert site.get("ward").status_code == 200
        problem(site.expecting("ward"), 429, "rate_limited")
        assert site.service.leftovers() == []


class TestRoom:
    """Each refusal comes before the body: who asks by `Expect: 100-continue` hears it at once."""

    PATHS = ("/segment", "/dicomweb/studies", "/dicomweb/studies/1.2.3")

    @pytest.mark.parametrize("path", PATHS)
    def test_too_many_jobs_of_a_client(self, raw: Callable[..., Raw], path: str) -> None:
        site = raw(client_queue_max=2)
        assert [site.submit("ward").status_code for _ in range(3)] == [202, 202, 429]
        problem(site.expecting("ward", path=path), 429, "too_many_jobs")
        assert site.submit("other").status_code == 202
        site.service.finish(site.get("ward").json()["jobs"][0]["id"])
        assert site.submit("ward").status_code == 202

    @pytest.mark.parametrize("path", PATHS)
    def test_a_full_queue(self, raw: Callable[..., Raw], path: str) -> None:
        site = raw(queue_max=2)
        assert [site.submit(one).status_code for one in ("ward", "other")] == [202, 202]
        for who in ("ward", "other"):
            problem(site.expecting(who, path=path), 503, "queue_full")
        assert site.get("ward").status_code == 200

    @pytest.mark.parametrize("path", PATHS)
    def test_a_full_disk(self, raw: Callable[..., Raw], path: str) -> None:
        site = raw(disk_free_min=1 << 60)
        problem(site.expecting("ward", path=path), 507, "storage_full")
        assert site.get("ward").status_code == 200
        assert site.service.leftovers() == []

    def test_a_length_that_is_not_told_counts_as_the_largest(self, raw: Callable[..., Raw]) -> None:
        site = raw(body_bytes_max=1 << 60)
        problem(site.expecting("ward", "Transfer-Encoding: chunked"), 507, "storage_full")
        assert site.submit("ward").status_code == 202

    def test_uploads_under_way_count(self, raw: Callable[..., Raw], counters: Any) -> None:
        site = raw(body_bytes_max=1 << 60)
        length = int(0.6 * shutil.disk_usage(site.service.gateway.settings.data).free)
        with site.begun("other", length):
            problem(site.expecting("ward", f"Content-Length: {length}"), 507, "storage_full")
            assert counters() == ({"other": 1}, length)
        until(lambda: counters() == ({}, 0))
        assert site.submit("ward").status_code == 202


class TestUploads:
    def test_so_many_at_once_of_each_client(self, raw: Callable[..., Raw], counters: Any) -> None:
        site = raw(client_uploads_max=2)
        with ExitStack() as stack:
            for _ in range(2):
                stack.enter_context(site.begun("ward"))
            assert counters() == ({"ward": 2}, 2000)
            problem(site.expecting("ward"), 429, "too_many_uploads")
            assert counters() == ({"ward": 2}, 2000)
            assert site.submit("other").status_code == 202
            assert site.get("ward").status_code == 200
        until(lambda: counters() == ({}, 0))
        assert site.submit("ward").status_code == 202
        assert site.service.until_clean()

    def test_an_upload_that_is_over_is_none_while_its_client_waits_for_the_result(
        self, raw: Callable[..., Raw], counters: Any
    ) -> None:
        site = raw(client_uploads_max=1)
        body = PART + FILE + END
        request = site.head("ward", f"Content-Length: {len(body)}", "Prefer: wait=5") + body
        with site.open(request) as waiting:
            until(lambda: len(site.get("ward").json()["jobs"]) == 1)
            assert counters() == ({}, 0)
            assert site.submit("ward").status_code == 202
            site.service.finish(site.get("ward").json()["jobs"][-1]["id"])
            assert answered(waiting).startswith("HTTP/1.1 200 ")

    @pytest.mark.parametrize("settings", [{"queue_max": 1}, {"disk_free_min": 1 << 60}, {"client_queue_max": 1}])
    def test_a_refusal_leaves_nothing_counted(self, raw: Callable[..., Raw], counters: Any, settings: Any) -> None:
        site = raw(client_uploads_max=2, **settings)
        site.submit("ward")
        for _ in range(5):
            assert site.submit("ward").status_code in (429, 503, 507)
        until(lambda: counters() == ({}, 0))

    def test_a_database_that_is_away_leaves_nothing_counted(self, raw: Callable[..., Raw], counters: Any) -> None:
        site = raw(client_uploads_max=2)
        with site.service.gateway.repository.engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE jobs RENAME TO elsewhere")
        for _ in range(4):
            answer = site.submit("ward")
            assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
        assert counters() == ({}, 0)


class TestSlowBody:
    @pytest.fixture(autouse=True)
    def short(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(limits, "GRACE_S", 0.3)

    def test_one_that_stops_is_refused_and_leaves_nothing(self, raw: Callable[..., Raw], counters: Any) -> None:
        site = raw()
        with site.begun("ward") as connection:
            answer = answered(connection)
            assert answer.startswith("HTTP/1.1 408 ")
            assert '"upload_too_slow"' in answer
            while connection.recv(65536):
                pass
        assert site.service.until_clean()
        until(lambda: counters() == ({}, 0))
        assert site.get("ward").json()["jobs"] == []

    def test_one_that_drips_is_refused(self, raw: Callable[..., Raw]) -> None:
        site = raw(body_rate_min=100_000)
        answer = b""
        with site.open(site.head("ward", "Content-Length: 100000") + PART + FILE) as connection:
            connection.settimeout(0.02)
            for _ in range(400):
                connection.sendall(b"x")
                try:
                    answer = connection.recv(65536)
                except TimeoutError:
                    continue
                break
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert site.service.until_clean()

    def test_one_that_keeps_pace_is_taken(self, raw: Callable[..., Raw]) -> None:
        site = raw(body_rate_min=1)

        def body() -> Iterator[bytes]:
            for piece in (PART, FILE, b"more", END):
                time.sleep(0.2)
                yield piece

        headers = {"Authorization": f"Bearer {site.texts['ward']}", "Content-Type": "multipart/form-data; boundary=b"}
        assert site.service.client.post("/segment", content=body(), headers=headers).status_code == 202

    def test_an_answer_may_take_longer_than_a_body(self, raw: Callable[..., Raw]) -> None:
        site = raw()
        job = site.submit("ward", **{"Idempotency-Key": "one"}).json()["id"]
        site.service.finish(job)
        (site.service.gateway.blobs.result_dir(job, 1) / "mask.nii.gz").write_bytes(bytes(30_000_000))
        headers = {"Authorization": f"Bearer {site.texts['ward']}", "Idempotency-Key": "one"}
        form: dict[str, Any] = {"files": {"scan": b"scan"}, "data": {"model": "tiny"}}
        with site.service.client.stream(
            "POST", "/segment", headers={**headers, "Accept": "application/gzip"}, **form
        ) as answer:
            time.sleep(1.0)
            assert sum(map(len, answer.iter_raw())) == 30_000_000

    def test_a_broken_connection_is_counted_no_longer(self, raw: Callable[..., Raw], counters: Any) -> None:
        site = raw(client_uploads_max=1)
        for _ in range(3):
            with site.begun("ward"):
                assert counters()[0] == {"ward": 1}
            until(lambda: counters() == ({}, 0))
        assert site.service.until_clean()


class TestAtOnce:
    def test_streams_of_events_count_until_they_end(self, raw: Callable[..., Raw]) -> None:
        site = raw(client_requests_max=2)
        location = site.submit("ward").headers["Location"]
        head = (
            f"GET {location}/events HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {site.texts['ward']}\r\n\r\n"
        )
        with ExitStack() as stack:
            for _ in range(2):
                stream = stack.enter_context(site.open(head.encode()))
                assert stream.recv(65536).startswith(b"HTTP/1.1 200 ")
            refused = site.get("ward")
            assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
            assert int(refused.headers["Retry-After"]) >= 1
            assert site.get("other").status_code == 200
        deadline = time.monotonic() + 20.0
        while site.get("ward").status_code != 200:  # the gateway notices that they are gone when it writes
            assert time.monotonic() < deadline
            time.sleep(0.1)
