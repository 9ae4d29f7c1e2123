"""Archives that answer as none should: a redirect is not followed, and no answer breaks the deliverer."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pacs.config import StowDestination
from pacs.errors import DeliveryError, RefusedError
from pacs.stow import send_stow


class Archive:
    """Answers as it is told."""

    def __init__(self) -> None:
        self.answer: tuple[int, dict[str, str], bytes] = (200, {}, b"{}")
        self.asked: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.asked.append(self.path)
                while size := int(self.rfile.readline(), 16):
                    self.rfile.read(size + 2)
                status, headers, body = outer.answer
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST  # noqa: N815  # the base class names it so

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class names it so
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def archives() -> Iterator[tuple[Archive, Archive]]:
    pair = Archive(), Archive()
    yield pair
    for one in pair:
        one.close()


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    (tmp_path / "mask.dcm").write_bytes(b"mask")
    return [tmp_path / "mask.dcm"]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(archives: tuple[Archive, Archive], files: list[Path], status: int) -> None:
    archive, elsewhere = archives
    archive.answer = (status, {"Location": f"{elsewhere.url}/studies"}, b"")
    with pytest.raises(RefusedError):
        send_stow(StowDestination(kind="stow", name="archive", url=archive.url), files)
    assert (archive.asked, elsewhere.asked) == (["/studies"], [])


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({}, b"[" * 100_000),
        ({}, b'{"00081198": {"Value": [{"00081197": {"Value": []}}]}}'),
        ({}, b'{"00081198": {"Value": [7, null, "x"]}}'),
        ({}, b'{"00081198": {"Value": [{"00081197": {"Value": {"0": 1}}}]}}'),
        ({}, b'{"00081198": []}'),
        ({}, b'{"00081198": {"Value": [{"00081197": {"Value": [1e999]}}]}}'),
        ({}, b'{"00081198": {"Value": {"a": 1}}}'),
        ({}, b"\xff\xfe\0\0"),
        ({"Content-Encoding": "gzip"}, gzip.compress(bytes(100_000_000), 9)),
        ({"Content-Encoding": "gzip"}, b"no gzip"),
    ],
)
def test_no_answer_breaks_the_deliverer(
    archives: tuple[Archive, Archive], files: list[Path], headers: dict[str, str], body: bytes
) -> None:
    archive, _ = archives
    archive.answer = (409, headers, body)
    with pytest.raises((RefusedError, DeliveryError)):
        send_stow(StowDestination(kind="stow", name="archive", url=archive.url), files)


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "gopher://127.0.0.1:6379/", "ftp://archive/", "//archive", "archive"]
)
def test_an_address_is_one_of_http(url: str) -> None:
    with pytest.raises(ValueError, match="url"):
        StowDestination(kind="stow", name="archive", url=url)
