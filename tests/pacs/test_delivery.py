"""Results on their way to archives: a real HTTP server, DCMTK's storescp and pynetdicom play the archives."""

from __future__ import annotations

import base64
import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from pydicom import dcmread
from pydicom.uid import ComprehensiveSRStorage, SegmentationStorage
from pynetdicom import AE, evt

from jobs.archive import DeliveryRepository, ObjectRepository
from jobs.blobs import Blobs
from jobs.database import open_database, upgrade
from jobs.models import Delivery, JobRequest
from jobs.repository import JobRepository
from jobs.state import DeliveryState
from ncagate.orthanc import LOOPBACK, free_ports
from ncagate.settings import Settings
from pacs.carriers import ArchiveCarrier
from pacs.config import CStoreDestination, Destination, PacsConfig, StowDestination
from pacs.delivery import FIRST_PAUSE_S, GIVE_UP_S, LONGEST_PAUSE_S, REFUSALS_MAX, Deliverer, deliver_until

WAIT_S = 20.0
FAILED = "00081198"


def answer(*reasons: int) -> bytes:
    """The body of a STOW-RS answer, with these failure reasons."""
    items = [{"00081197": {"vr": "US", "Value": [one]}} for one in reasons]
    return json.dumps({FAILED: {"vr": "SQ", "Value": items}} if items else {}).encode()


class Archive:
    """A STOW-RS server that keeps what it gets and answers as it is told, then with 200."""

    def __init__(self, *answers: tuple[int, bytes] | None) -> None:
        self.answers = [*answers]
        self.requests: list[tuple[str, Message, list[bytes]]] = []
        self.on_request: Callable[[], object] = lambda: None
        self.server = ThreadingHTTPServer((LOOPBACK, 0), self._handler())

    @property
    def port(self) -> int:
        return self.server.server_address[1]

    @property
    def bodies(self) -> list[list[bytes]]:
        return [parts for _, _, parts in self.requests]

    def _handler(archive) -> type[BaseHTTPRequestHandler]:  # noqa: N805  # the inner self is the handler's
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                boundary = str(self.headers.get_param("boundary")).encode()
                sections = body.split(b"--" + boundary)[1:-1]
                parts = [one.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n") for one in sections]
                archive.requests.append((self.path, self.headers, parts))
                archive.on_request()
                told = archive.answers.pop(0) if archive.answers else (200, answer())
                if told is None:  # the answer is lost
                    self.close_connection = True
                    return
                status, content = told
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class names it so
                return None

        return Handler


class Desk:
    """Finished jobs with their objects, and deliverers of them, at a time that the test sets."""

    def __init__(self, folder: Path, make_slices: Callable[..., list[Path]]) -> None:
        self.now = time.time()
        self.settings = Settings(data=folder / "data")
        upgrade(self.settings.database)
        engine = open_database(self.settings.database)
        self.jobs = JobRepository(engine, clock=lambda: self.now)
        self.deliveries = DeliveryRepository(engine, clock=lambda: self.now)
        self.objects, self.blobs = ObjectRepository(engine), Blobs(self.settings.blobs)
        self._folder, self._make = folder, make_slices

    def finished(self, *destinations: str, verdict: str = "accept") -> str:
        """A job with a SEG and an SR, as a worker ends it."""
        job_id, rows = uuid4().hex, []
        request = JobRequest(
            model="tiny", version="1.0.0", min_dice=0.8, members=3, destinations=destinations or ("archive",)
        )
        with self.blobs.staging() as staged:
            (staged / "0000").write_bytes(b"scan")
            self.blobs.commit_input(staged, job_id)
        self.jobs.create(job_id, request)
        job = self.jobs.claim(job_id, 60.0)
        assert job is not None
        with self.blobs.staging() as out:
            for name, kind, modality in (
                ("segmentation.dcm", SegmentationStorage, "SEG"),
                ("report.dcm", ComprehensiveSRStorage, "SR"),
            ):
                uid = f"2.25.{int(uuid4())}"
                (made,) = self._make(self._folder / uid, 1, SOPClassUID=kind, Modality=modality, SOPInstanceUID=uid)
                made.rename(out / name)
                rows.append(
                    {
                        "sop_instance_uid": uid,
                        "study_uid": "1.2",
                        "series_uid": f"{uid[:50]}.1",
                        "sop_class_uid": str(kind),
                        "modality": modality,
                        "file": name,
                    }
                )
            self.blobs.commit_result(out, job_id, job.attempt)
        assert self.jobs.succeed(job_id, job.attempt, {"verdict": verdict}, objects=rows)
        return job_id

    def files(self, job_id: str) -> list[bytes]:
        """The result's DICOM files, in the order of sending."""
        folder = self.blobs.result_dir(job_id, 1)
        return [(folder / name).read_bytes() for name in ("segmentation.dcm", "report.dcm")]

    def deliverer(self, destination: Destination) -> Deliverer:
        carrier = ArchiveCarrier(destination, self.objects, self.blobs)
        return Deliverer(carrier, self.deliveries, clock=lambda: self.now)

    def attempt(self, destination: Destination, *, after_s: float = 0.0) -> bool:
        self.now += after_s
        return self.deliverer(destination).deliver_one()

    def delivery(self, job_id: str) -> Delivery:
        (one,) = self.deliveries.of_job(job_id)
        return one


def stow(port: int, **options: Any) -> StowDestination:
    address = {"kind": "stow", "name": "archive", "url": f"http://{LOOPBACK}:{port}/dicom-web/"}
    return StowDestination.model_validate({"timeout_s": 5.0, **address, **options})


def cstore(port: int, **options: Any) -> CStoreDestination:
    address = {"kind": "cstore", "name": "archive", "host": LOOPBACK, "port": port, "ae_title": "PACS"}
    return CStoreDestination.model_validate({"timeout_s": 5.0, **address, **options})


@pytest.fixture
def desk(tmp_path: Path, make_slices: Callable[..., list[Path]]) -> Desk:
    return Desk(tmp_path, make_slices)


@pytest.fixture
def serve() -> Iterator[Callable[..., Archive]]:
    """Starts an archive that speaks STOW-RS, with these answers."""
    with ExitStack() as stack:

        def start(*answers: tuple[int, bytes] | None, context: ssl.SSLContext | None = None) -> Archive:
            archive = Archive(*answers)
            if context is not None:
                archive.server.socket = context.wrap_socket(archive.server.socket, server_side=True)
            thread = threading.Thread(target=archive.server.serve_forever, kwargs={"poll_interval": 0.02})
            thread.start()
            stack.callback(archive.server.server_close)
            stack.callback(thread.join)
            stack.callback(archive.server.shutdown)
            return archive

        yield start


@contextmanager
def scp(
    *statuses: int, kinds: Sequence[str] = (SegmentationStorage, ComprehensiveSRStorage), **options: Any
) -> Iterator[tuple[int, list[str]]]:
    """An archive that speaks C-STORE, with these statuses and then 0; its port and what it was sent."""
    left, stored = [*statuses], []

    def store(event: Any) -> int:
        stored.append(str(event.request.AffectedSOPInstanceUID))
        return left.pop(0) if left else 0x0000

    entity = AE(ae_title="PACS")
    entity.require_called_aet = True
    for name, value in options.items():
        setattr(entity, name, value)
    for kind in kinds:
        entity.add_supported_context(kind)
    server: Any = entity.start_server((LOOPBACK, 0), block=False, evt_handlers=[(evt.EVT_C_STORE, store)])
    try:
        yield server.server_address[1], stored
    finally:
        entity.shutdown()


class TestStow:
    def test_a_result_is_delivered_once_as_it_lies_on_the_disk(self, desk: Desk, serve: Any) -> None:
        archive, job_id = serve(), desk.finished()
        assert desk.attempt(stow(archive.port))
        assert not desk.attempt(stow(archive.port), after_s=GIVE_UP_S)
        ((path, headers, parts),) = archive.requests
        assert path == "/dicom-web/studies"
        assert headers.get_content_type() == "multipart/related"
        assert (headers.get_param("type"), headers["Accept"]) == ("application/dicom", "application/dicom+json")
        assert headers["Authorization"] is None
        assert parts == desk.files(job_id)
        one = desk.delivery(job_id)
        assert (one.state, one.attempts, one.error, one.due_at) == (DeliveryState.DELIVERED, 1, None, None)

    def test_a_password_stands_in_a_file(self, desk: Desk, serve: Any, tmp_path: Path) -> None:
        (tmp_path / "password").write_text("geheim\n")
        archive = serve()
        desk.finished()
        desk.attempt(stow(archive.port, username="me", password_file=tmp_path / "password"))
        told = archive.requests[0][1]["Authorization"]
        assert base64.b64decode(told.removeprefix("Basic ")) == b"me:geheim"

    def test_a_token_stands_in_a_file_that_is_read_at_every_attempt(
        self, desk: Desk, serve: Any, tmp_path: Path
    ) -> None:
        archive = serve((503, b""))
        desk.finished()
        for token in ("old", "new"):
            (tmp_path / "token").write_text(f"{token}\n")
            desk.attempt(stow(archive.port, token_file=tmp_path / "token"), after_s=FIRST_PAUSE_S)
        assert [headers["Authorization"] for _, headers, _ in archive.requests] == ["Bearer old", "Bearer new"]

    def test_without_its_secret_it_waits(self, desk: Desk, serve: Any, tmp_path: Path) -> None:
        archive, job_id = serve(), desk.finished()
        desk.attempt(stow(archive.port, token_file=tmp_path / "nothing"))
        assert archive.requests == []
        assert desk.delivery(job_id).state is DeliveryState.PENDING
        assert desk.delivery(job_id).error == "the secret cannot be read: FileNotFoundError"

    def test_by_tls_where_the_authority_is_known(self, desk: Desk, serve: Any, certificate: tuple[Path, Path]) -> None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificate[0])
        context.load_cert_chain(*certificate)
        context.verify_mode = ssl.CERT_REQUIRED
        archive, job_id = serve(context=context), desk.finished()
        url = f"https://localhost:{archive.port}/dicom-web"
        shown = {"certificate": certificate[0], "key": certificate[1]}
        for tls, state in (
            (None, "pending"),
            (shown, "pending"),
            ({**shown, "authority": certificate[0]}, "delivered"),
        ):
            desk.attempt(stow(0, url=url, tls=tls), after_s=LONGEST_PAUSE_S)
            assert desk.delivery(job_id).state == state
        assert archive.bodies == [desk.files(job_id)]

    def test_a_lost_answer_is_followed_by_the_same_bytes(self, desk: Desk, serve: Any) -> None:
        archive, job_id = serve(None), desk.finished()
        desk.attempt(stow(archive.port))
        assert desk.delivery(job_id).state is DeliveryState.PENDING
        desk.attempt(stow(archive.port), after_s=FIRST_PAUSE_S)
        first, second = archive.bodies
        assert first == second == desk.files(job_id)
        assert desk.delivery(job_id).state is DeliveryState.DELIVERED

    @pytest.mark.parametrize(
        ("status", "body"),
        [
            (200, b""),
            (200, b"<NativeDicomModel/>"),
            (202, answer()),
            (202, answer(0x0111)),
            (409, answer(0x0111, 0x0111)),
        ],
    )
    def test_what_the_archive_has_counts_as_delivered(self, desk: Desk, serve: Any, status: int, body: bytes) -> None:
        archive, job_id = serve((status, body)), desk.finished()
        desk.attempt(stow(archive.port))
        assert desk.delivery(job_id).state is DeliveryState.DELIVERED

    @pytest.mark.parametrize(
        ("status", "body", "told"),
        [
            (200, answer(0xA700), "HTTP 200, failure reason A700"),
            (202, answer(0x0111, 0xC122), "HTTP 202, failure reason 0111, failure reason C122"),
            (202, b"", "HTTP 202"),
            (409, answer(0x0122), "HTTP 409, failure reason 0122"),
            (409, b"no JSON", "HTTP 409"),
            (401, b"", "HTTP 401"),
            (301, b"", "HTTP 301"),
            (415, answer(0x0111), "HTTP 415"),
        ],
    )
    def test_a_refusal_is_tried_again_and_in_the_end_failed(
        self, desk: Desk, serve: Any, status: int, body: bytes, told: str
    ) -> None:
        archive, job_id = serve(*[(status, body)] * REFUSALS_MAX), desk.finished()
        for number in range(REFUSALS_MAX):
            assert desk.delivery(job_id).state is DeliveryState.PENDING
            assert desk.attempt(stow(archive.port), after_s=FIRST_PAUSE_S * 2**number)
        one = desk.delivery(job_id)
        assert (one.state, one.attempts, one.error, one.due_at) == (DeliveryState.FAILED, REFUSALS_MAX, told, None)
        assert not desk.attempt(stow(archive.port), after_s=LONGEST_PAUSE_S)

    @pytest.mark.parametrize("status", [500, 502, 503, 408, 425, 429])
    def test_trouble_that_passes_is_no_refusal(self, desk: Desk, serve: Any, status: int) -> None:
        archive, job_id = serve(*[(status, answer(0x0111))] * (REFUSALS_MAX + 2)), desk.finished()
        for _ in range(REFUSALS_MAX + 2):
            desk.attempt(stow(archive.port), after_s=LONGEST_PAUSE_S)
        assert (desk.delivery(job_id).state, desk.delivery(job_id).error) == (DeliveryState.PENDING, f"HTTP {status}")
        desk.attempt(stow(archive.port), after_s=LONGEST_PAUSE_S)
        assert (desk.delivery(job_id).state, desk.delivery(job_id).error) == (DeliveryState.DELIVERED, None)

    def test_a_refusal_after_a_long_silence_is_the_first_one(self, desk: Desk, serve: Any) -> None:
        archive, job_id = serve(*[(503, b"")] * 8, (404, b"")), desk.finished()
        for _ in range(9):
            desk.attempt(stow(archive.port), after_s=LONGEST_PAUSE_S)
        assert desk.delivery(job_id).state is DeliveryState.PENDING
        assert (desk.delivery(job_id).attempts, desk.delivery(job_id).refusals) == (9, 1)


class TestPauses:
    def test_they_grow_and_after_a_week_it_is_given_up(self, desk: Desk) -> None:
        (port,) = free_ports(1)
        job_id, pauses = desk.finished(), []
        for _ in range(9):
            assert desk.attempt(stow(port))
            due_at = desk.delivery(job_id).due_at
            assert due_at is not None
            pauses.append(round(due_at - desk.now))
            assert not desk.attempt(stow(port), after_s=pauses[-1] - 1.0)
            desk.now += 1.1
        assert pauses == [5, 10, 20, 40, 80, 160, 320, 600, 600]
        assert desk.delivery(job_id).error == "no answer: ConnectError"
        desk.attempt(stow(port), after_s=GIVE_UP_S)
        assert desk.delivery(job_id).state is DeliveryState.FAILED

    def test_an_archive_that_comes_back_gets_it(self, desk: Desk, serve: Any) -> None:
        (port,) = free_ports(1)
        job_id = desk.finished()
        desk.attempt(stow(port))
        archive = serve()
        assert not desk.attempt(stow(archive.port))
        assert desk.attempt(stow(archive.port), after_s=FIRST_PAUSE_S)
        assert desk.delivery(job_id).state is DeliveryState.DELIVERED


class TestChoice:
    def test_flagged_results_are_withheld_where_they_are_not_wanted(self, desk: Desk, serve: Any) -> None:
        archive, flagged, accepted = serve(), desk.finished(verdict="flag"), desk.finished()
        while desk.attempt(stow(archive.port, flagged=False)):
            pass
        assert archive.bodies == [desk.files(accepted)]
        assert desk.delivery(accepted).state is DeliveryState.DELIVERED
        one = desk.delivery(flagged)
        assert (one.state, one.due_at) == (DeliveryState.WITHHELD, None)

    def test_flagged_results_go_where_they_are_wanted(self, desk: Desk, serve: Any) -> None:
        archive, job_id = serve(), desk.finished(verdict="flag")
        desk.attempt(stow(archive.port))
        assert archive.bodies == [desk.files(job_id)]

    def test_a_result_goes_to_every_destination_of_its_route(self, desk: Desk, serve: Any) -> None:
        archives, job_id = {"one": serve(), "two": serve()}, desk.finished("one", "two")
        for name, archive in archives.items():
            assert desk.attempt(stow(archive.port, name=name))
        assert [one.bodies for one in archives.values()] == [[desk.files(job_id)]] * 2


class TestErased:
    def test_before_the_attempt_there_is_nothing_to_send(self, desk: Desk, serve: Any) -> None:
        archive, job_id = serve(), desk.finished()
        desk.jobs.erase(job_id)
        assert not desk.attempt(stow(archive.port))
        assert archive.requests == []

    @pytest.mark.parametrize("status", [200, 503])
    def test_amid_the_attempt_is_no_hindrance(self, desk: Desk, serve: Any, status: int) -> None:
        archive, job_id, other = serve((status, answer())), desk.finished(), desk.finished()
        archive.on_request = lambda: desk.jobs.erase(job_id)
        assert desk.attempt(stow(archive.port))
        assert desk.deliveries.of_job(job_id) == []
        desk.attempt(stow(archive.port))
        assert desk.delivery(other).state is DeliveryState.DELIVERED

    def test_files_that_are_gone_keep_nobody_waiting(self, desk: Desk, serve: Any) -> None:
        archive, job_id, other = serve(), desk.finished(), desk.finished()
        desk.blobs.erase(job_id)
        while desk.attempt(stow(archive.port)):
            pass
        assert (desk.delivery(job_id).state, desk.delivery(job_id).error) == ("pending", "FileNotFoundError")
        assert desk.delivery(other).state is DeliveryState.DELIVERED


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")  # pynetdicom leaves one that did not connect
class TestCStore:
    def test_storescp_gets_the_objects_as_they_are(
        self, desk: Desk, dcmtk: Callable[[str], str], tmp_path: Path
    ) -> None:
        (port,), inbox, job_id = free_ports(1), tmp_path / "inbox", desk.finished()
        inbox.mkdir()
        command = [dcmtk("storescp"), "--aetitle", "PACS", "--output-directory", str(inbox), "--bit-preserving"]
        with subprocess.Popen([*command, str(port)]) as process:
            try:
                deadline = time.monotonic() + WAIT_S
                while desk.delivery(job_id).state is DeliveryState.PENDING and time.monotonic() < deadline:
                    desk.attempt(cstore(port), after_s=LONGEST_PAUSE_S / 100)
            finally:
                process.terminate()
        assert desk.delivery(job_id).state is DeliveryState.DELIVERED
        stored = [dcmread(one) for one in inbox.iterdir()]
        sent = [dcmread(desk.blobs.result_dir(job_id, 1) / name) for name in ("segmentation.dcm", "report.dcm")]
        assert sorted(stored, key=lambda one: one.Modality) == sorted(sent, key=lambda one: one.Modality)

    @pytest.mark.parametrize("status", [0x0000, 0x0111, 0xB000, 0xB007])
    def test_what_the_archive_has_counts_as_delivered(self, desk: Desk, status: int) -> None:
        job_id = desk.finished()
        with scp(status) as (port, stored):
            desk.attempt(cstore(port))
        assert desk.delivery(job_id).state is DeliveryState.DELIVERED
        assert len(stored) == 2

    @pytest.mark.parametrize("status", [0xA900, 0xC000, 0x0122])
    def test_a_refusal_is_tried_again_and_in_the_end_failed(self, desk: Desk, status: int) -> None:
        job_id = desk.finished()
        with scp(*[status] * REFUSALS_MAX) as (port, _):
            for _ in range(REFUSALS_MAX):
                assert desk.delivery(job_id).state is DeliveryState.PENDING
                desk.attempt(cstore(port), after_s=LONGEST_PAUSE_S)
        assert (desk.delivery(job_id).state, desk.delivery(job_id).error) == ("failed", f"status {status:04X}")

    def test_want_of_room_passes(self, desk: Desk) -> None:
        job_id = desk.finished()
        with scp(0xA700) as (port, _):
            desk.attempt(cstore(port))
            assert (desk.delivery(job_id).refusals, desk.delivery(job_id).error) == (0, "status A700")
            desk.attempt(cstore(port), after_s=FIRST_PAUSE_S)
        assert desk.delivery(job_id).state is DeliveryState.DELIVERED

    def test_an_archive_that_does_not_answer_is_no_refusal(self, desk: Desk) -> None:
        job_id = desk.finished()
        desk.attempt(cstore(free_ports(1)[0]))
        assert (desk.delivery(job_id).refusals, desk.delivery(job_id).error) == (0, "no association")

    @pytest.mark.parametrize(
        ("options", "refusals", "told"),
        [
            ({"require_calling_aet": ["ELSE"]}, 1, "association rejected"),
            ({"ae_title": "OTHER"}, 1, "association rejected"),
            ({"kinds": ["1.2.840.10008.5.1.4.1.1.2"]}, 1, "none of the objects is of a kind that is accepted"),
            ({"kinds": [SegmentationStorage]}, 1, "this kind of object is not accepted"),
        ],
    )
    def test_what_the_archive_does_not_let_in_is_a_refusal(
        self, desk: Desk, options: dict[str, Any], refusals: int, told: str
    ) -> None:
        job_id = desk.finished()
        with scp(**options) as (port, _):
            desk.attempt(cstore(port))
        assert (desk.delivery(job_id).refusals, desk.delivery(job_id).error) == (refusals, told)

    def test_an_archive_with_too_many_associations_is_no_refusal(self, desk: Desk) -> None:
        job_id = desk.finished()
        with scp(maximum_associations=1) as (port, _):
            entity = AE(ae_title="ELSE")
            entity.add_requested_context(SegmentationStorage)
            held = entity.associate(LOOPBACK, port, ae_title="PACS")
            assert held.is_established
            desk.attempt(cstore(port))
            held.release()
        assert (desk.delivery(job_id).refusals, desk.delivery(job_id).error) == (0, "no association now")

    def test_by_tls(self, desk: Desk, certificate: tuple[Path, Path]) -> None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*certificate)
        job_id, stored = desk.finished(), []

        def store(event: Any) -> int:
            stored.append(event.request.AffectedSOPInstanceUID)
            return 0

        entity = AE(ae_title="PACS")
        for kind in (SegmentationStorage, ComprehensiveSRStorage):
            entity.add_supported_context(kind)
        handlers: list[Any] = [(evt.EVT_C_STORE, store)]
        server: Any = entity.start_server((LOOPBACK, 0), block=False, ssl_context=context, evt_handlers=handlers)
        try:
            desk.attempt(cstore(server.server_address[1], tls={"authority": certificate[0]}))
        finally:
            entity.shutdown()
        assert desk.delivery(job_id).state is DeliveryState.DELIVERED
        assert len(stored) == 2


class TestDeliverUntil:
    def test_a_dead_archive_keeps_no_other_waiting_and_stopping_is_prompt(self, desk: Desk, serve: Any) -> None:
        (port,), archive = free_ports(1), serve()
        dead, alive = [desk.finished("dead") for _ in range(3)], [desk.finished("archive") for _ in range(3)]
        config = PacsConfig(destination=(stow(port, name="dead"), stow(archive.port)))
        stop = threading.Event()
        thread = threading.Thread(target=deliver_until, args=(stop, desk.settings, config))
        thread.start()
        try:
            wanted = ["pending"] * 3 + ["delivered"] * 3
            deadline = time.monotonic() + WAIT_S
            while [desk.delivery(one).state for one in (*dead, *alive)] != wanted and time.monotonic() < deadline:
                time.sleep(0.02)
            assert [desk.delivery(one).state for one in (*dead, *alive)] == wanted
        finally:
            stop.set()
            thread.join(WAIT_S)
        assert not thread.is_alive()
        assert sorted(archive.bodies) == sorted(desk.files(one) for one in alive)


class TestCommand:
    def test_it_delivers_and_ends_at_sigterm(self, desk: Desk, serve: Any, tmp_path: Path) -> None:
        archive, job_id = serve(), desk.finished()
        url = stow(archive.port).url
        path = tmp_path / "pacs.toml"
        path.write_text(f'[[destination]]\nname = "archive"\nkind = "stow"\nurl = "{url}"\n')
        environment = os.environ | {"NCAGATE_DATA": str(desk.settings.data), "NCAGATE_PACS": str(path)}
        with subprocess.Popen([sys.executable, "-m", "ncagate.cli", "deliver"], env=environment) as process:
            deadline = time.monotonic() + WAIT_S
            while desk.delivery(job_id).state is DeliveryState.PENDING and time.monotonic() < deadline:
                time.sleep(0.05)
            process.send_signal(signal.SIGTERM)
            assert process.wait(WAIT_S) == 0
        assert archive.bodies == [desk.files(job_id)]

    def test_a_table_that_cannot_be_is_told_in_a_line(self, tmp_path: Path) -> None:
        (tmp_path / "pacs.toml").write_text("quiet_s = 0")
        environment = os.environ | {"NCAGATE_DATA": str(tmp_path), "NCAGATE_PACS": str(tmp_path / "pacs.toml")}
        command = [sys.executable, "-m", "ncagate.cli", "deliver"]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert done.stderr.endswith("[invalid_pacs_config]\n")
