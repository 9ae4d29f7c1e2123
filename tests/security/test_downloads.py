"""`Range` on downloads: no request gets more than the file, whatever it asks for; and those who take their time."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

from service import server

SIZE = 3_000_000
DATA = bytes(range(251)) * (SIZE // 251 + 1)


@pytest.fixture(scope="module")
def shared(serving: Any, shared_redis: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, str]]:
    """A gateway, and the address of a mask of `SIZE` bytes."""
    with serving(tmp_path_factory.mktemp("downloads"), redis_url=shared_redis.url) as service:
        job = service.submit()
        service.finish(job)
        (service.gateway.blobs.result_dir(job, 1) / "mask.nii.gz").write_bytes(DATA[:SIZE])
        yield service, f"/jobs/{job}/mask"


def ranged(shared: tuple[Any, str], value: str, **headers: str) -> Any:
    service, path = shared
    return service.client.get(path, headers={"Range": value, "Accept-Encoding": "identity", **headers})


class TestRange:
    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ("bytes=0-0", slice(0, 1)), ("bytes=10-19", slice(10, 20)), ("bytes=-5", slice(SIZE - 5, SIZE)),
            (f"bytes={SIZE - 1}-", slice(SIZE - 1, SIZE)), ("bytes=0-" + "9" * 40, slice(0, SIZE)),
            ("bytes=-" + "9" * 40, slice(0, SIZE)),
        ],
    )  # fmt: skip
    def test_a_part_is_that_part(self, shared: tuple[Any, str], value: str, expected: slice) -> None:
        answer = ranged(shared, value)
        assert answer.status_code == 206
        assert answer.content == DATA[:SIZE][expected]
        assert answer.headers["NCAgate-Verdict"] == "flag"

    @pytest.mark.parametrize(
        "value",
        [
            ",".join(f"{place}-{SIZE}" for place in range(0, 3000)),
            ",".join("0-" for _ in range(3000)),
            ",".join(["0-"] * 90),
            ",".join(f"-{place}" for place in range(1, 90)),
            ",".join(f"{place}-{place}" for place in range(0, 6000, 2)),
            "0-0," * 5000,
            "0-,-1,5-6," + "x" * 5000,
        ],
    )
    def test_many_parts_are_never_much_more_than_the_file(self, shared: tuple[Any, str], value: str) -> None:
        answer = ranged(shared, f"bytes={value}")
        assert answer.status_code in (200, 206)
        assert len(answer.content) < SIZE + 100_000

    def test_tiny_parts_far_apart_cost_little(self, shared: tuple[Any, str]) -> None:
        answer = ranged(shared, "bytes=" + ",".join(f"{place}-{place}" for place in range(0, 99_000, 1000)))
        assert answer.status_code == 206
        assert len(answer.content) < 99 * 250
        assert answer.content.count(b"Content-Range: ") == 99

    @pytest.mark.parametrize(
        "value", [f"bytes={SIZE}-", f"bytes={SIZE}-{SIZE + 5}", "bytes=" + "9" * 30 + "-", "bytes=-0"]
    )
    def test_what_is_beyond_the_end_is_a_problem_with_a_code(self, shared: tuple[Any, str], value: str) -> None:
        answer = ranged(shared, value)
        assert (answer.status_code, answer.json()["code"]) == (416, "range_not_satisfiable")
        assert answer.headers["Content-Range"] == f"bytes */{SIZE}"

    @pytest.mark.parametrize(
        "value",
        [
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=a-b",
            "bytes=5-1",
            "bytes=0--1",
            "lines=0-1",
            "bytes=1",
            "=",
            "",
        ],
    )
    def test_what_is_none_is_passed_over(self, shared: tuple[Any, str], value: str) -> None:
        """RFC 9110, 14.2: a range that is not valid, or of an unknown unit, is ignored."""
        answer = ranged(shared, value)
        assert (answer.status_code, len(answer.content)) == (200, SIZE)

    def test_of_a_job_that_is_not_ones_own_is_not_there(self, shared: tuple[Any, str]) -> None:
        service, path = shared
        answer = service.client.get(path.replace("/mask", "x/mask"), headers={"Range": "bytes=0-1"})
        assert answer.status_code == 404

    def test_a_condition_that_does_not_hold_gives_the_whole(self, shared: tuple[Any, str]) -> None:
        whole = ranged(shared, "bytes=0-9", **{"If-Range": '"another"'})
        assert (whole.status_code, len(whole.content)) == (200, SIZE)
        part = ranged(shared, "bytes=0-9", **{"If-Range": whole.headers["ETag"]})
        assert (part.status_code, len(part.content)) == (206, 10)


class TestSlowReaders:
    def test_who_takes_nothing_is_let_go(self, serve: Any, broker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(server, "STALLED_S", 0.5)
        service = serve(redis_url=broker.url)
        job = service.submit()
        service.finish(job)
        (service.gateway.blobs.result_dir(job, 1) / "mask.nii.gz").write_bytes(bytes(30_000_000))
        with socket.socket() as raw:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            raw.connect(("127.0.0.1", service.port))
            raw.settimeout(10.0)
            raw.sendall(f"GET /jobs/{job}/mask HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
            time.sleep(1.5)
            heard = 0
            with suppress(ConnectionResetError):
                while piece := raw.recv(1 << 20):
                    heard += len(piece)
        assert 0 < heard < 30_000_000
        assert service.client.get("/livez").status_code == 200

    def test_who_takes_it_slowly_gets_it_all(self, shared: tuple[Any, str], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(server, "STALLED_S", 2.0)
        service, path = shared
        with service.client.stream("GET", path) as answer:
            content = b""
            for piece in answer.iter_bytes(SIZE // 8):
                content += piece
                time.sleep(0.05)
        assert re.fullmatch(r"bytes", answer.headers["Accept-Ranges"])
        assert content == DATA[:SIZE]
