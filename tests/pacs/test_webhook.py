"""Webhooks: real HTTP and HTTPS servers on this machine get them; names are resolved as the test says."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from jobs.archive import WEBHOOK, DeliveryRepository
from jobs.database import open_database, upgrade
from jobs.errors import WebhookRefusedError
from jobs.models import Delivery, JobRequest
from jobs.repository import JobRepository
from jobs.state import DeliveryState, JobState
from model_store.registry import Registry
from ncagate.orthanc import LOOPBACK, free_ports
from ncagate.settings import Settings
from ncagate.webhook_hosts import Address, WebhookHosts
from pacs.config import PacsConfig, Route, load_pacs
from pacs.delivery import (
    FIRST_PAUSE_S,
    GIVE_UP_S,
    LONGEST_PAUSE_S,
    REFUSALS_MAX,
    WEBHOOK_THREADS,
    Deliverer,
    deliver_until,
    deliverers,
)
from pacs.errors import InvalidPacsConfigError, WebhookSecretError
from pacs.webhook import WebhookCarrier, open_webhooks, read_secrets

ROOT = Path(__file__).resolve().parents[2]
NAME = "hooks.example"
WAIT_S = 20.0
PATIENT = "Doe^Jane"
RESULT: dict[str, Any] = {
    "verdict": "flag",
    "reasons": [{"code": "nqm_above_threshold", "detail": f"NQM of {PATIENT}"}],
    "nqm": 0.3,
    "predicted_dice": 0.66,
    "required_dice": 0.8,
    "warnings": [PATIENT],
    "segments": [{"name": PATIENT}],
}


def secret() -> str:
    return f"whsec_{base64.b64encode(os.urandom(32)).decode()}"


class Receiver:
    """A server that keeps what it gets, and answers with these statuses and then 204."""

    def __init__(self, *statuses: int, host: str = LOOPBACK, port: int = 0, location: str = "") -> None:
        self.statuses, self.location = [*statuses], location
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.names: list[str | None] = []
        self.server = ThreadingHTTPServer((host, port), self._handler())

    @property
    def port(self) -> int:
        return self.server.server_address[1]

    @property
    def bodies(self) -> list[bytes]:
        return [body for _, _, body in self.requests]

    def secure(self, context: ssl.SSLContext) -> None:
        context.sni_callback = lambda _, name, __: self.names.append(name)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)

    def _handler(receiver) -> type[BaseHTTPRequestHandler]:  # noqa: N805  # the inner self is the handler's
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                receiver.requests.append((self.path, headers, body))
                self.send_response(receiver.statuses.pop(0) if receiver.statuses else 204)
                self.send_header("Location", receiver.location)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def do_GET(self) -> None:
                receiver.requests.append((self.path, {}, b"GET"))

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class names it so
                return None

        return Handler


class Desk:
    """Jobs with webhooks, and a deliverer of them, at a time that the test sets."""

    def __init__(self, folder: Path) -> None:
        self.now, self.secret, self.secret_file = time.time(), secret(), folder / "secret"
        self.secret_file.write_text(f"{self.secret}\n")
        self.settings = Settings(data=folder / "data")
        upgrade(self.settings.database)
        engine = open_database(self.settings.database)
        self.jobs = JobRepository(engine, clock=lambda: self.now)
        self.deliveries = DeliveryRepository(engine, clock=lambda: self.now)

    def ended(self, url: str, state: JobState = JobState.SUCCEEDED) -> str:
        """A job that has come to its end."""
        request = JobRequest(
            model="tiny", version="1.0.0", min_dice=0.8, members=3, series_uid="1.2.3.4", roi="voxel:0,0,0:9,9,9",
            webhook=url,
        )  # fmt: skip
        job_id = self.jobs.create(uuid4().hex, request).id
        if state is JobState.CANCELLED:
            self.jobs.request_cancel(job_id)
            return job_id
        job = self.jobs.claim(job_id, 60.0)
        assert job is not None
        if state is JobState.FAILED:
            assert self.jobs.fail(job_id, job.attempt, "mixed_series", f"two series of {PATIENT}")
        else:
            assert self.jobs.succeed(job_id, job.attempt, RESULT)
        return job_id

    def carrier(self, hosts: str, **changes: Any) -> WebhookCarrier:
        made = WebhookCarrier(WebhookHosts.parse(hosts), self.secret_file, clock=lambda: self.now, timeout_s=5.0)
        return replace(made, **changes)

    def attempt(self, hosts: str, *, after_s: float = 0.0, **changes: Any) -> bool:
        self.now += after_s
        return Deliverer(self.carrier(hosts, **changes), self.deliveries, lambda: self.now).deliver_one()

    def delivery(self, job_id: str) -> Delivery:
        (one,) = self.deliveries.of_job(job_id)
        return one


def leading_to(*answers: Sequence[str]) -> Callable[[str, int], list[Address]]:
    """A resolver that gives these addresses, one list a question; asked further it fails the test."""
    left = [*answers]
    return lambda host, port: [ip_address(one) for one in left.pop(0)]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@pytest.fixture
def receive() -> Iterator[Callable[..., Receiver]]:
    """Starts a receiver."""
    with ExitStack() as stack:

        def start(*statuses: int, context: ssl.SSLContext | None = None, **options: Any) -> Receiver:
            receiver = Receiver(*statuses, **options)
            if context is not None:
                receiver.secure(context)
            thread = threading.Thread(target=receiver.server.serve_forever, kwargs={"poll_interval": 0.02})
            thread.start()
            stack.callback(receiver.server.server_close)
            stack.callback(thread.join)
            stack.callback(receiver.server.shutdown)
            return receiver

        yield start


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A certificate for this name, which is its own authority, with its key in one file."""

    def make(name: str) -> Path:
        key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        made = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=2))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(key, hashes.SHA256())
        )
        path = tmp_path_factory.mktemp("tls") / f"{name}.pem"
        encoding = serialization.Encoding.PEM
        private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        path.write_bytes(made.public_bytes(encoding) + private)
        return path

    return make


def server_context(certificate: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    return context


class TestEvent:
    @pytest.mark.parametrize("state", [JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED])
    def test_names_the_job_and_its_verdict_and_nothing_of_the_patient(
        self, desk: Desk, receive: Any, state: JobState
    ) -> None:
        receiver = receive()
        job_id = desk.ended(f"http://127.0.0.1:{receiver.port}/hook?a=b", state)
        assert desk.attempt(f"127.0.0.1:{receiver.port}")
        ((path, headers, body),) = receiver.requests
        assert (path, headers["content-type"]) == ("/hook?a=b", "application/json")
        assert headers["host"] == f"127.0.0.1:{receiver.port}"
        succeeded, told = state is JobState.SUCCEEDED, json.loads(body)
        ended = datetime.fromisoformat(told.pop("timestamp"))
        assert ended.timestamp() == pytest.approx(desk.now, abs=0.001)
        assert told == {
            "type": f"job.{state.value}",
            "data": {
                "id": job_id,
                "state": state.value,
                "link": f"/jobs/{job_id}",
                "model": "tiny",
                "version": "1.0.0",
                "verdict": "flag" if succeeded else None,
                "nqm": 0.3 if succeeded else None,
                "predicted_dice": 0.66 if succeeded else None,
                "required_dice": 0.8 if succeeded else None,
                "reasons": ["nqm_above_threshold"] if succeeded else [],
                "error": "mixed_series" if state is JobState.FAILED else None,
            },
        }
        for private in (PATIENT, "1.2.3.4", "voxel"):
            assert private.encode() not in body
        one = desk.delivery(job_id)
        assert (one.destination, one.state, one.attempts, one.error) == (WEBHOOK, DeliveryState.DELIVERED, 1, None)
        assert not desk.attempt(f"127.0.0.1:{receiver.port}", after_s=GIVE_UP_S)


class TestSignature:
    def test_is_verified_by_the_library_of_others(self, desk: Desk, receive: Any) -> None:
        receiver = receive()
        job_id = desk.ended(f"http://127.0.0.1:{receiver.port}/")
        desk.attempt(f"127.0.0.1:{receiver.port}")
        ((_, headers, body),) = receiver.requests
        assert Webhook(desk.secret).verify(body, headers)["data"]["id"] == job_id
        for wrong_body, wrong_secret in ((body + b" ", desk.secret), (body, secret())):
            with pytest.raises(WebhookVerificationError):
                Webhook(wrong_secret).verify(wrong_body, headers)

    def test_is_verified_by_the_lines_in_the_documentation(self, desk: Desk, receive: Any) -> None:
        receiver, known = receive(), dict[str, Any]()
        desk.ended(f"http://127.0.0.1:{receiver.port}/")
        desk.attempt(f"127.0.0.1:{receiver.port}")
        ((_, headers, body),) = receiver.requests
        (lines,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "api.md").read_text(), re.DOTALL)
        exec(lines, known)
        verify = known["verify"]
        assert verify(desk.secret, headers, body)
        assert not verify(secret(), headers, body)
        assert not verify(desk.secret, headers, body + b" ")
        assert not verify(desk.secret, {**headers, "webhook-timestamp": str(int(desk.now) - 301)}, body)

    def test_by_every_secret_of_the_file_as_it_is_now(self, desk: Desk, receive: Any) -> None:
        receiver, new = receive(503), secret()
        desk.ended(f"http://127.0.0.1:{receiver.port}/")
        desk.attempt(f"127.0.0.1:{receiver.port}")
        desk.secret_file.write_text(f"{new}\n\n{desk.secret}\n")
        desk.attempt(f"127.0.0.1:{receiver.port}", after_s=FIRST_PAUSE_S)
        before, after = (headers for _, headers, _ in receiver.requests)
        first, second = receiver.bodies
        assert first == second
        assert before["webhook-id"] == after["webhook-id"]
        assert int(after["webhook-timestamp"]) - int(before["webhook-timestamp"]) == pytest.approx(FIRST_PAUSE_S, abs=1)
        assert len(after["webhook-signature"].split()) == 2
        for one in (new, desk.secret):
            assert Webhook(one).verify(second, after)

    def test_without_a_secret_nothing_is_sent(self, desk: Desk, receive: Any) -> None:
        receiver = receive()
        job_id = desk.ended(f"http://127.0.0.1:{receiver.port}/")
        desk.secret_file.unlink()
        desk.attempt(f"127.0.0.1:{receiver.port}")
        assert receiver.requests == []
        assert desk.delivery(job_id).state is DeliveryState.PENDING
        assert desk.delivery(job_id).error == "the secret of webhooks cannot be read: FileNotFoundError"

    @pytest.mark.parametrize(
        "content", ["", "geheim", "whsec_", "whsec_geheim==", f"whsec_{'A' * 88}", f"whsec_{'*' * 32}"]
    )
    def test_a_secret_that_is_none_is_refused(self, tmp_path: Path, content: str) -> None:
        (tmp_path / "secret").write_text(content)
        with pytest.raises(WebhookSecretError) as error:
            read_secrets(tmp_path / "secret")
        assert error.value.code == "webhook_secret_unreadable"
        assert "geheim" not in str(error.value)


class TestAnswers:
    @pytest.mark.parametrize("status", [200, 201, 202, 204])
    def test_2xx_is_delivered(self, desk: Desk, receive: Any, status: int) -> None:
        receiver = receive(status)
        job_id = desk.ended(f"http://127.0.0.1:{receiver.port}/")
        desk.attempt(f"127.0.0.1:{receiver.port}")
        assert desk.delivery(job_id).state is DeliveryState.DELIVERED

    def test_410_ends_it(self, desk: Desk, receive: Any) -> None:
        receiver = receive(410)
        job_id = desk.ended(f"http://127.0.0.1:{receiver.port}/")
        desk.attempt(f"127.0.0.1:{receiver.port}")
        one = desk.delivery(job_id)
        assert (one.state, one.error, one.due_at) == (DeliveryState.FAILED, "HTTP 410", None)

    @pytest.mark.parametrize("status", [301, 302, 307, 308])
    def test_a_redirect_is_a_refusal_and_not_followed(self, desk: Desk, receive: Any, status: int) -> None:
        elsewhere = receive()
        receiver = receive(*[status] * REFUSALS_MAX, location=f"http://127.0.0.1:{elsewhere.port}/")
        hosts = f"127.0.0.1:{receiver.port},127.0.0.1:{elsewhere.port}"
        job_id = desk.ended(f"http://127.0.0.1:{receiver.port}/")
        for _ in range(REFUSALS_MAX):
            assert desk.delivery(job_id).state is DeliveryState.PENDING
            desk.attempt(hosts, after_s=LONGEST_PAUSE_S)
        assert (desk.delivery(job_id).state, desk.delivery(job_id).error) == ("failed", f"HTTP {status}")
        assert (len(receiver.requests), elsewhere.requests) == (REFUSALS_MAX, [])

    @pytest.mark.parametrize("status", [500, 503, 408, 425, 429])
    def test_trouble_that_passes_is_tried_again(self, desk: Desk, receive: Any, status: int) -> None:
        receiver = receive(*[status] * (REFUSALS_MAX + 1))
        job_id = desk.ended(f"http://127.0.0.1:{receiver.port}/")
        for _ in range(REFUSALS_MAX + 1):
            desk.attempt(f"127.0.0.1:{receiver.port}", after_s=LONGEST_PAUSE_S)
        assert (desk.delivery(job_id).state, desk.delivery(job_id).refusals) == (DeliveryState.PENDING, 0)
        desk.attempt(f"127.0.0.1:{receiver.port}", after_s=LONGEST_PAUSE_S)
        assert desk.delivery(job_id).state is DeliveryState.DELIVERED

    def test_no_answer_is_tried_again_for_a_week(self, desk: Desk) -> None:
        (port,) = free_ports(1)
        job_id = desk.ended(f"http://127.0.0.1:{port}/")
        for after_s in (0.0, FIRST_PAUSE_S, GIVE_UP_S - LONGEST_PAUSE_S):
            desk.attempt(f"127.0.0.1:{port}", after_s=after_s)
            assert desk.delivery(job_id).state is DeliveryState.PENDING
        assert desk.delivery(job_id).error == "no answer: ConnectError"
        desk.attempt(f"127.0.0.1:{port}", after_s=LONGEST_PAUSE_S + 1.0)
        assert desk.delivery(job_id).state is DeliveryState.FAILED

    def test_one_that_drips_is_cut_off_at_the_deadline(self, desk: Desk) -> None:
        stop = threading.Event()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
                while not stop.wait(0.05):
                    try:
                        self.wfile.write(b"x")
                    except OSError:
                        return

        with ThreadingHTTPServer((LOOPBACK, 0), Handler) as server:
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}).start()
            port = server.server_address[1]
            job_id, began = desk.ended(f"http://127.0.0.1:{port}/"), time.monotonic()
            desk.attempt(f"127.0.0.1:{port}", timeout_s=0.5)
            took = time.monotonic() - began
            stop.set()
            server.shutdown()
        assert desk.delivery(job_id).error == "no answer: ReadTimeout"
        assert 0.4 < took < 3.0

    def test_a_body_without_end_is_not_read(self, desk: Desk) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
                try:
                    while True:
                        self.wfile.write(bytes(65536))
                except OSError:
                    return

        with ThreadingHTTPServer((LOOPBACK, 0), Handler) as server:
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}).start()
            port = server.server_address[1]
            job_id = desk.ended(f"http://127.0.0.1:{port}/")
            desk.attempt(f"127.0.0.1:{port}")
            server.shutdown()
        assert desk.delivery(job_id).state is DeliveryState.DELIVERED


class TestAddress:
    def test_a_name_is_resolved_once_and_that_address_connected_to(
        self, desk: Desk, receive: Any, certificates: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        certificate = certificates(NAME)
        receiver = receive(context=server_context(certificate))
        rebound = receive(context=server_context(certificate), host="127.0.0.2", port=receiver.port)
        asked, real = list[str](), socket.getaddrinfo

        def getaddrinfo(host: str, *rest: Any, **more: Any) -> Any:
            asked.append(host)
            return real(host, *rest, **more)

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        job_id = desk.ended(f"https://{NAME}:{receiver.port}/hook")
        desk.attempt(
            f"{NAME}:{receiver.port},127.0.0.1",
            resolve=leading_to(["127.0.0.1"], ["127.0.0.2"]),
            context=ssl.create_default_context(cafile=str(certificate)),
        )
        assert desk.delivery(job_id).error is None
        ((path, headers, _),) = receiver.requests
        assert (path, headers["host"]) == ("/hook", f"{NAME}:{receiver.port}")
        assert (receiver.names, rebound.requests, rebound.names) == ([NAME], [], [])
        assert set(asked) == {"127.0.0.1"}

    def test_a_certificate_for_another_name_is_no_answer(self, desk: Desk, receive: Any, certificates: Any) -> None:
        certificate = certificates("other.example")
        receiver = receive(context=server_context(certificate))
        for name, authority in ((NAME, certificate), ("other.example", certificates("other.example"))):
            job_id = desk.ended(f"https://{name}:{receiver.port}/")
            desk.attempt(
                f"{name}:{receiver.port},127.0.0.1",
                resolve=leading_to(["127.0.0.1"]),
                context=ssl.create_default_context(cafile=str(authority)),
            )
            assert desk.delivery(job_id).error == "no answer: ConnectError"
        assert receiver.requests == []

    @pytest.mark.parametrize(
        "address", ["127.0.0.1", "::1", "10.0.0.1", "169.254.169.254", "::ffff:127.0.0.1", "0.0.0.0"]
    )
    def test_a_name_that_leads_inside_is_refused(self, desk: Desk, receive: Any, address: str) -> None:
        receiver = receive()
        job_id = desk.ended(f"https://{NAME}:{receiver.port}/")
        desk.attempt(f"{NAME}:{receiver.port}", resolve=leading_to([address]))
        assert (receiver.requests, receiver.names) == ([], [])
        one = desk.delivery(job_id)
        assert (one.refusals, one.error) == (1, "the host's name leads to no address that this deployment sends to")

    def test_of_several_those_that_are_permitted_are_tried(self, desk: Desk, receive: Any) -> None:
        receiver, inside = receive(), receive(host="127.0.0.3")
        job_id = desk.ended(f"http://localhost:{receiver.port}/")
        hosts = f"localhost:{receiver.port},127.0.0.1,127.0.0.2"
        desk.attempt(hosts, resolve=leading_to(["127.0.0.3", "127.0.0.2", "127.0.0.1"]))
        assert desk.delivery(job_id).state is DeliveryState.DELIVERED
        assert inside.requests == []
        assert receiver.requests[0][1]["host"] == f"localhost:{receiver.port}"

    def test_a_name_that_nobody_knows_is_tried_again(self, desk: Desk) -> None:
        job_id = desk.ended("https://nobody.invalid/")
        desk.attempt("nobody.invalid")
        one = desk.delivery(job_id)
        assert (one.state, one.refusals, one.error) == ("pending", 0, "the host's name cannot be resolved")

    def test_a_host_taken_off_the_list_gets_nothing_more(self, desk: Desk, receive: Any) -> None:
        receiver = receive()
        job_id = desk.ended(f"http://127.0.0.1:{receiver.port}/")
        desk.attempt("ris.example.org")
        assert receiver.requests == []
        assert desk.delivery(job_id).error == "this deployment does not send to this host any more"

    def test_proxies_of_the_environment_are_not_used(
        self, desk: Desk, receive: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        receiver, proxy = receive(), receive()
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        job_id = desk.ended(f"http://127.0.0.1:{receiver.port}/")
        desk.attempt(f"127.0.0.1:{receiver.port}")
        assert (desk.delivery(job_id).state, len(receiver.requests), proxy.requests) == ("delivered", 1, [])


class TestDeployment:
    def settings(self, desk: Desk, hosts: str) -> Settings:
        return desk.settings.model_copy(update={"webhook_hosts": hosts, "webhook_secret_file": desk.secret_file})

    def test_without_hosts_has_no_deliverer(self, desk: Desk) -> None:
        assert open_webhooks(desk.settings) is None
        assert deliverers(desk.settings, PacsConfig()) == []
        assert len(deliverers(self.settings(desk, "ris.example.org"), PacsConfig())) == WEBHOOK_THREADS

    def test_no_destination_may_take_the_name(self, tmp_path: Path) -> None:
        path = tmp_path / "pacs.toml"
        path.write_text(f'[[destination]]\nname = "{WEBHOOK}"\nkind = "stow"\nurl = "https://pacs.example/"\n')
        with pytest.raises(InvalidPacsConfigError, match="no destination can be called webhook"):
            load_pacs(path)

    def test_a_receiver_that_hangs_keeps_no_other_waiting(self, desk: Desk, receive: Any) -> None:
        receiver = receive()
        with socket.create_server((LOOPBACK, 0)) as silent:
            hanging = desk.ended(f"http://127.0.0.1:{silent.getsockname()[1]}/")
            others = [desk.ended(f"http://127.0.0.1:{receiver.port}/") for _ in range(3)]
            hosts = f"127.0.0.1:{silent.getsockname()[1]},127.0.0.1:{receiver.port}"
            stop = threading.Event()
            thread = threading.Thread(target=deliver_until, args=(stop, self.settings(desk, hosts), PacsConfig()))
            thread.start()
            deadline = time.monotonic() + WAIT_S / 2
            while len(receiver.requests) < len(others) and time.monotonic() < deadline:
                time.sleep(0.02)
            assert desk.delivery(hanging).state is DeliveryState.PENDING
            stop.set()
        thread.join(WAIT_S)
        assert len(receiver.requests) == len(others)


class TestRoute:
    @pytest.fixture
    def route(self, tmp_path: Path) -> Route:
        path = tmp_path / "pacs.toml"
        path.write_text(f'[[route]]\nname = "heads"\nmodel = "hippocampus"\nwebhook = "https://{NAME}/hook"\n')
        (route,) = load_pacs(path).route
        return route

    def test_its_webhook_is_that_of_the_job(self, desk: Desk, route: Route) -> None:
        settings = desk.settings.model_copy(update={"webhook_hosts": NAME})
        request = route.wish().request(Registry(settings.models), settings)
        assert request.webhook == f"https://{NAME}/hook"

    def test_one_to_a_host_that_is_not_named_leads_nowhere(self, desk: Desk, route: Route) -> None:
        with pytest.raises(WebhookRefusedError):
            route.wish().request(Registry(desk.settings.models), desk.settings)

    def test_one_that_is_no_url_is_refused_when_the_file_is_read(self, tmp_path: Path) -> None:
        path = tmp_path / "pacs.toml"
        path.write_text('[[route]]\nname = "heads"\nmodel = "hippocampus"\nwebhook = "http://hooks.example/"\n')
        with pytest.raises(InvalidPacsConfigError, match="http is for loopback"):
            load_pacs(path)


class TestCommand:
    def environment(self, desk: Desk, hosts: str, **more: str) -> dict[str, str]:
        chosen = {"NCAGATE_DATA": str(desk.settings.data), "NCAGATE_WEBHOOK_SECRET_FILE": str(desk.secret_file)}
        return os.environ | chosen | {"NCAGATE_WEBHOOK_HOSTS": hosts} | more

    def test_it_delivers_by_tls_with_the_authorities_of_the_environment(
        self, desk: Desk, receive: Any, certificates: Any
    ) -> None:
        certificate = certificates("localhost")
        receiver = receive(context=server_context(certificate))
        job_id = desk.ended(f"https://localhost:{receiver.port}/hook")
        environment = self.environment(desk, f"localhost:{receiver.port},127.0.0.1", SSL_CERT_FILE=str(certificate))
        with subprocess.Popen([sys.executable, "-m", "ncagate.cli", "deliver"], env=environment) as process:
            deadline = time.monotonic() + WAIT_S
            while desk.delivery(job_id).state is DeliveryState.PENDING and time.monotonic() < deadline:
                time.sleep(0.05)
            process.send_signal(signal.SIGTERM)
            assert process.wait(WAIT_S) == 0
        assert desk.delivery(job_id).state is DeliveryState.DELIVERED
        assert receiver.names == ["localhost"]

    @pytest.mark.parametrize("command", ["serve", "deliver"])
    def test_without_its_secret_it_says_so_and_does_not_start(self, desk: Desk, command: str) -> None:
        desk.secret_file.unlink()
        environment = self.environment(desk, "ris.example.org")
        done = subprocess.run(
            [sys.executable, "-m", "ncagate.cli", command], capture_output=True, text=True, env=environment, timeout=60
        )
        assert done.returncode == 2
        assert done.stderr.endswith("[webhook_secret_unreadable]\n")

    def test_hosts_that_cannot_be_are_told_in_a_line(self, desk: Desk) -> None:
        environment = self.environment(desk, "https://ris.example.org")
        command = [sys.executable, "-m", "ncagate.cli", "deliver"]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert done.stderr.endswith("[invalid_setting]\n")
