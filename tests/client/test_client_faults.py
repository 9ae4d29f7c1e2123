"""The client on networks and gateways that fail: one job however often it is sent, and no half file on the disk."""

from __future__ import annotations

import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest

from jobs.repository import JobRepository
from ncagate.client import NoAnswerError, NotUnderstoodError, Part, UntrustedServerError, WaitTimeoutError
from tests.chaos.proxy import FaultProxy, Network
from tests.e2e.conftest import Stack
from tests.service.conftest import Service


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "scan.nii"
    path.write_bytes(os.urandom(190_000))
    return path


@pytest.fixture
def answers(faulty: Any) -> list[httpx.Response]:
    """What the client has been answered."""
    seen: list[httpx.Response] = []

    async def note(response: httpx.Response) -> None:
        seen.append(response)

    waiting = isinstance(faulty._http, httpx.Client)
    faulty._http.event_hooks = {"response": [seen.append if waiting else note]}
    return seen


def cut_for_a_moment(proxy: FaultProxy) -> None:
    proxy.become(Network.CUT, seconds=0.3)


def once(work: Callable[[], object]) -> Callable[[], None]:
    """Does it the first time it is called."""
    left = [work]

    def call() -> None:
        if left:
            left.pop()()

    return call


class TestUploads:
    def test_that_break_in_the_middle_are_sent_again(
        self, faulty: Any, proxy: FaultProxy, service: Service, file: Path
    ) -> None:
        cut = once(lambda: cut_for_a_moment(proxy))
        told: list[int] = []

        def progress(sent: int, total: int) -> None:
            told.append(sent)
            if sent > total / 2:
                cut()

        job = faulty.segment(file, model="tiny", wait=False, progress=progress)
        assert [one.id for one in service.gateway.repository.list()] == [job.id]
        assert len(told) > len(set(told))  # it began again
        (sent,) = (one for one in (service.blobs / "jobs" / job.id).rglob("*") if one.is_file())
        assert sent.read_bytes() == file.read_bytes()

    def test_whose_answer_was_lost_make_one_job(
        self,
        faulty: Any,
        proxy: FaultProxy,
        service: Service,
        answers: list[httpx.Response],
        file: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        commit, tries = JobRepository.create, []

        def create(*arguments: Any, **options: Any) -> Any:
            tries.append(commit(*arguments, **options))
            cut_for_a_moment(proxy)
            return tries[-1]

        monkeypatch.setattr(JobRepository, "create", create)
        job = faulty.segment(file, model="tiny", wait=False)
        assert [one.id for one in tries] == [job.id]
        assert [one.id for one in service.gateway.repository.list()] == [job.id]
        assert [one.status_code for one in answers] == [202]  # the first one never came

    def test_of_two_calls_are_two_jobs(self, faulty: Any, service: Service, file: Path) -> None:
        first, second = (faulty.segment(file, model="tiny", wait=False) for _ in range(2))
        assert first.id != second.id
        named = [faulty.segment(file, model="tiny", wait=False, idempotency_key="case 1").id for _ in range(2)]
        assert named[0] == named[1]

    def test_end_when_patience_does(self, talk: Callable[..., Any], proxy: FaultProxy, file: Path) -> None:
        proxy.become(Network.CUT)
        with pytest.raises(NoAnswerError):
            talk(f"http://127.0.0.1:{proxy.port}", patience=0.5).segment(file, model="tiny")


class TestWatching:
    def test_goes_on_where_the_network_was_cut(
        self, faulty: Any, proxy: FaultProxy, service: Service, answers: list[httpx.Response]
    ) -> None:
        job, states = service.submit(), []
        for one in faulty.watch(job):
            states.append(one.state)
            if len(states) == 1:
                proxy.become(Network.CUT)
                service.finish(job)
                cut_for_a_moment(proxy)
        assert states == ["queued", "succeeded"]
        assert len([one for one in answers if one.url.path.endswith("/events")]) == 2

    def test_ends_in_time_where_the_network_says_nothing(
        self, faulty: Any, proxy: FaultProxy, service: Service
    ) -> None:
        job = service.submit()
        watched = faulty.watch(job, timeout=1.0)
        assert next(watched).state == "queued"
        proxy.become(Network.HUNG)
        with pytest.raises(WaitTimeoutError):
            next(watched)
        proxy.become(Network.FINE)


class TestCancelling:
    def test_whose_answer_was_lost_does_not_erase(
        self, faulty: Any, proxy: FaultProxy, service: Service, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cancel = JobRepository.request_cancel

        def cut(*arguments: Any) -> Any:
            state = cancel(*arguments)
            cut_for_a_moment(proxy)
            return state

        monkeypatch.setattr(JobRepository, "request_cancel", cut)
        job = service.submit()
        assert faulty.cancel(job).state == "cancelled"
        assert service.gateway.repository.get(job) is not None

    def test_of_erasing_an_answer_that_was_lost_is_no_error(
        self, faulty: Any, proxy: FaultProxy, service: Service, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        erase = JobRepository.erase

        def cut(*arguments: Any, **options: Any) -> Any:
            erased = erase(*arguments, **options)
            cut_for_a_moment(proxy)
            return erased

        job = service.submit()
        service.finish(job)
        monkeypatch.setattr(JobRepository, "erase", cut)
        faulty.erase(job)
        assert service.gateway.repository.get(job) is None


class TestDownloads:
    @pytest.mark.parametrize("changed", [False, True], ids=["the same", "another"])
    def test_go_on_where_they_broke_unless_the_file_is_another_one(
        self,
        faulty: Any,
        proxy: FaultProxy,
        service: Service,
        answers: list[httpx.Response],
        tmp_path: Path,
        changed: bool,
    ) -> None:
        job = service.submit()
        service.finish(job)
        (mask,) = (service.blobs / "jobs" / job).rglob("mask.nii.gz")
        mask.write_bytes(os.urandom(4_000_000))
        result, out = faulty.result(job), tmp_path / "out"
        out.mkdir()
        proxy.become(Network.SLOW)

        def cut() -> None:
            deadline = time.monotonic() + 20
            while not any(one.stat().st_size for one in out.iterdir()) and time.monotonic() < deadline:
                time.sleep(0.01)
            proxy.become(Network.CUT)
            if changed:
                mask.write_bytes(os.urandom(3_000_000))
            proxy.become(Network.FINE)

        cutter = threading.Thread(target=cut)
        cutter.start()
        saved = result.save(out)
        cutter.join()
        assert saved.read_bytes() == mask.read_bytes()
        assert list(out.iterdir()) == [saved]
        kinds = [one.status_code for one in answers if one.url.path.endswith("/mask")]
        assert kinds == ([200, 200] if changed else [200, 206])

    def test_that_do_not_come_leave_nothing(
        self, talk: Callable[..., Any], proxy: FaultProxy, service: Service, tmp_path: Path
    ) -> None:
        job = service.submit()
        service.finish(job)
        result = talk(f"http://127.0.0.1:{proxy.port}", patience=0.3).result(job)
        proxy.become(Network.CUT)
        with pytest.raises(NoAnswerError):
            result.save(f"{tmp_path}/out/")
        assert list((tmp_path / "out").iterdir()) == []


class Answers(BaseHTTPRequestHandler):
    """Answers as a proxy might that is between: what to each path, by its end."""

    kinds: ClassVar[dict[str, tuple[int, dict[str, str], bytes]]] = {
        "models": (200, {"Content-Length": "14"}, b'{"models": []}'),
        "moved": (302, {"Location": "http://elsewhere.example/", "Content-Length": "4"}, b"mask"),
        "packed": (200, {"Content-Encoding": "gzip", "Content-Length": "4"}, b"mask"),
        "endless": (200, {}, b"mask"),
        "part": (206, {"Content-Range": "bytes 7-10/11", "Content-Length": "4"}, b"mask"),
        "page": (200, {"Content-Length": "6"}, b"<html>"),
        "badly": (200, {"Content-Encoding": "gzip", "Content-Length": "6"}, b"<html>"),
    }

    def do_GET(self) -> None:
        status, headers, body = self.kinds[
            self.path.split("/")[-2] if "mask" in self.path else self.path.split("/")[-1]
        ]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class's name
        pass


@contextmanager
def answering(certificate: tuple[Path, Path] | None = None) -> Iterator[int]:
    """A server of such answers; its port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        yield int(server.server_address[1])
        server.shutdown()
        thread.join()


@pytest.fixture
def secure(certificate: tuple[Path, Path]) -> Iterator[str]:
    """The address of one behind TLS."""
    with answering(certificate) as port:
        yield f"https://localhost:{port}"


class TestBetween:
    """What a proxy makes of an answer is never taken for a result."""

    @pytest.mark.parametrize("kind", ["moved", "packed", "endless", "part"])
    def test_a_file_is_not_saved(self, talk: Callable[..., Any], kind: str, tmp_path: Path) -> None:
        with answering() as port:
            client = talk(f"http://127.0.0.1:{port}")
            with pytest.raises(NotUnderstoodError):
                client._run(client._flows.save(kind, Part.MASK, tmp_path))
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("kind", ["moved", "page", "badly"])
    def test_a_job_is_not_read(self, talk: Callable[..., Any], kind: str) -> None:
        with answering() as port, pytest.raises(NotUnderstoodError):
            talk(f"http://127.0.0.1:{port}").job(kind)


class TestTrust:
    def test_a_certificate_that_is_not_trusted_is_told_at_once(self, talk: Callable[..., Any], secure: str) -> None:
        with pytest.raises(UntrustedServerError):
            talk(secure).models()

    def test_a_file_of_certificates_or_a_context_is_trusted(
        self, talk: Callable[..., Any], secure: str, certificate: tuple[Path, Path]
    ) -> None:
        for trust in (certificate[0], str(certificate[0]), ssl.create_default_context(cafile=certificate[0])):
            assert talk(secure, verify=trust).models() == ()


MEASURED = """
import resource, sys
from ncagate.client import Client
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with Client(sys.argv[1]) as client:
    client.segment(sys.argv[2], model="tiny", wait=False)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
from ncagate.client import Client
with Client(sys.argv[1]) as client:
    print(client.segment(sys.argv[2], model="tiny", wait=False).state)
"""


def run(code: str, *arguments: object) -> str:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


class TestMemory:
    def test_a_large_scan_is_not_kept_in_it(self, serve: Callable[..., Service], broker: Any, tmp_path: Path) -> None:
        service = serve(redis_url=broker.url)
        with (tmp_path / "scan.nii").open("wb") as file:
            file.truncate(150_000_000)
        assert int(run(MEASURED, f"http://127.0.0.1:{service.port}", tmp_path / "scan.nii")) < 30  # MiB

    def test_a_series_may_have_more_files_than_can_be_open(
        self, serve: Callable[..., Service], broker: Any, tmp_path: Path
    ) -> None:
        service = serve(redis_url=broker.url)
        (tmp_path / "series").mkdir()
        for number in range(200):
            (tmp_path / "series" / f"{number}.dcm").write_bytes(b"x")
        assert run(LIMITED, f"http://127.0.0.1:{service.port}", tmp_path / "series") == "queued"


class TestGateway:
    def test_that_is_killed_under_an_upload_gets_one_job_of_it(
        self, stack: Stack, talk: Callable[..., Any], scan: Path
    ) -> None:
        pid = stack.pid("gateway")
        kill = once(lambda: os.kill(pid, signal.SIGKILL))
        client = talk(str(stack.status()["url"]))
        before = {one.id for one in client.jobs()}
        result = client.segment(scan, model="tiny", members=2, progress=lambda sent, total: kill())
        assert result.verdict in ("accept", "flag")
        assert {one.id for one in client.jobs()} - before == {result.job.id}
        assert stack.pid("gateway") != pid
        assert result.mask().shape == (24, 20, 18)
