"""The C-STORE listener, real, on a free port: DCMTK, pynetdicom and bare sockets are its peers."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, RLELossless
from pynetdicom import AE
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from jobs.state import SeriesState
from ncagate.orthanc import LOOPBACK, free_ports
from pacs.config import ListenSection
from pacs.errors import InvalidPacsConfigError, ListenError
from pacs.listen import PDU_BYTES_MAX, Listener

Slices = Callable[..., list[Path]]
WAIT_S = 20.0


def until(true: Callable[[], object]) -> bool:
    """Whether it becomes true within some seconds."""
    deadline = time.monotonic() + WAIT_S
    while not true() and time.monotonic() < deadline:
        time.sleep(0.02)
    return bool(true())


class Running:
    """A listener, its port, and what lies in its scratch."""

    def __init__(self, listener: Listener, port: int) -> None:
        self.listener, self.port = listener, port

    def scratch(self) -> list[Path]:
        return list(Path(tempfile.gettempdir()).iterdir())


@pytest.fixture
def listen(desk: Any) -> Iterator[Callable[..., Running]]:
    """Starts a listener with this section."""
    with ExitStack() as stack:

        def start(**section: Any) -> Running:
            chosen = ListenSection.model_validate({"host": LOOPBACK, "port": 0, **section})
            listener = Listener(chosen, desk.collection)
            return Running(listener, stack.enter_context(listener.listening()))

        yield start


@contextmanager
def associated(
    port: int, *, calling: str = "PACS", called: str = "NCAGATE", tls: tuple[ssl.SSLContext, str] | None = None
) -> Iterator[Any]:
    """An association of pynetdicom's, released at the end unless it was ended before."""
    entity = AE(ae_title=calling)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = WAIT_S
    entity.add_requested_context(Verification)
    entity.add_requested_context(MRImageStorage, ExplicitVRLittleEndian)
    association = entity.associate(LOOPBACK, port, ae_title=called, tls_args=tls)
    try:
        yield association
    finally:
        association.release()
        channel = association.dul.socket
        if channel is not None and channel.socket is not None:  # pynetdicom leaves it where the other side was faster
            channel.socket.close()


def store(association: Any, files: list[Path]) -> list[int]:
    return [association.send_c_store(dcmread(one)).Status for one in files]


class TestEcho:
    def test_it_answers_dcmtk(self, listen: Callable[..., Running], dcmtk: Callable[[str], str]) -> None:
        command = [dcmtk("echoscu"), "--call", "NCAGATE", LOOPBACK, str(listen().port)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")

    def test_it_answers_pynetdicom(self, listen: Callable[..., Running]) -> None:
        with associated(listen().port) as association:
            assert association.send_c_echo().Status == 0x0000


class TestStore:
    def test_dcmtk_stores_a_series(
        self,
        desk: Any,
        listen: Callable[..., Running],
        dcmtk: Callable[[str], str],
        make_slices: Slices,
        tmp_path: Path,
    ) -> None:
        files = make_slices(tmp_path / "in", 5)
        running = listen()
        command = [dcmtk("storescu"), "--aetitle", "SCANNER", "--call", "NCAGATE", LOOPBACK, str(running.port)]
        done = subprocess.run([*command, *map(str, files)], capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")
        kept = sorted((dcmread(one) for one in desk.kept()), key=lambda one: one.InstanceNumber)
        assert kept == [dcmread(one) for one in files]
        assert (desk.row.sender, desk.state) == ("SCANNER", SeriesState.COLLECTING)
        assert running.scratch() == []

    def test_a_compressed_object_keeps_its_transfer_syntax(
        self, desk: Any, listen: Callable[..., Running], make_slices: Slices, tmp_path: Path
    ) -> None:
        (file,) = make_slices(tmp_path / "in", 1)
        one = dcmread(file)
        one.compress(RLELossless)
        entity = AE(ae_title="PACS")
        entity.add_requested_context(MRImageStorage, RLELossless)
        association = entity.associate(LOOPBACK, listen().port, ae_title="NCAGATE")
        assert association.send_c_store(one).Status == 0x0000
        association.release()
        (kept,) = map(dcmread, desk.kept())
        assert kept.file_meta.TransferSyntaxUID == RLELossless
        assert kept == one

    def test_the_same_again_is_stored_and_another_object_is_a_duplicate(
        self, desk: Any, listen: Callable[..., Running], make_slices: Slices, tmp_path: Path
    ) -> None:
        files, others = make_slices(tmp_path / "in", 2), make_slices(tmp_path / "other", 1, PatientID="P2")
        running = listen()
        for wanted, sent in (([0, 0], files), ([0, 0], files), ([0x0111], others)):
            with associated(running.port) as association:
                assert store(association, sent) == wanted
        assert sorted(dcmread(one).PatientID for one in desk.kept()) == ["P1", "P1"]
        assert running.scratch() == []

    def test_an_object_of_another_identifier_than_was_named_is_refused_and_not_kept(
        self, desk: Any, listen: Callable[..., Running], make_slices: Slices, tmp_path: Path
    ) -> None:
        one = dcmread(make_slices(tmp_path / "in", 1)[0])
        with associated(listen().port) as association:
            request_of(association, "1.2.3.4")
            assert association.send_c_store(one).Status == 0xA900
        assert (desk.kept(), desk.rows) == ([], [])

    def test_an_object_without_identifiers_is_not_understood(
        self, desk: Any, listen: Callable[..., Running], make_slices: Slices, tmp_path: Path
    ) -> None:
        one = dcmread(make_slices(tmp_path / "in", 1)[0])
        del one.SeriesInstanceUID
        with associated(listen().port) as association:
            assert association.send_c_store(one).Status == 0xC000
        assert desk.kept() == []

    def test_one_that_cannot_be_kept_is_told_as_want_of_room(
        self, desk: Any, listen: Callable[..., Running], make_slices: Slices, tmp_path: Path
    ) -> None:
        files = make_slices(tmp_path / "in", 1)
        running = listen()
        (desk.settings.blobs / "series").write_text("where the folder should be")
        with associated(running.port) as association:
            assert store(association, files) == [0xA700]
            (desk.settings.blobs / "series").unlink()
            assert store(association, files) == [0x0000]
        assert running.scratch() == []


def request_of(association: Any, instance: str) -> None:
    """Have the association name this instance, whatever it sends."""
    send = association.dimse.send_msg

    def changed(primitive: Any, context: int) -> None:
        primitive.AffectedSOPInstanceUID = instance
        send(primitive, context)

    association.dimse.send_msg = changed


class TestWhoMaySend:
    @pytest.mark.parametrize(
        ("section", "calling", "called", "accepted"),
        [
            ({}, "ANY", "NCAGATE", True),
            ({}, "ANY", "OTHER", False),
            ({"any_called": True}, "ANY", "OTHER", True),
            ({"calling": ["PACS", "CT 1"]}, "CT 1", "NCAGATE", True),
            ({"calling": ["PACS"]}, "ELSE", "NCAGATE", False),
            ({"calling": ["PACS"]}, "pacs", "NCAGATE", False),
            ({"ae_title": "GATE 2"}, "ANY", "GATE 2", True),
        ],
    )
    def test_is_a_matter_of_titles(
        self, listen: Callable[..., Running], section: dict[str, Any], calling: str, called: str, accepted: bool
    ) -> None:
        with associated(listen(**section).port, calling=calling, called=called) as association:
            assert (association.is_established, association.is_rejected) == (accepted, not accepted)

    def test_an_unknown_caller_stores_nothing(
        self,
        desk: Any,
        listen: Callable[..., Running],
        dcmtk: Callable[[str], str],
        make_slices: Slices,
        tmp_path: Path,
    ) -> None:
        files = make_slices(tmp_path / "in", 1)
        command = [dcmtk("storescu"), "--call", "NCAGATE", LOOPBACK, str(listen(calling=["PACS"]).port)]
        done = subprocess.run([*command, *map(str, files)], capture_output=True, text=True, timeout=60)
        assert done.returncode != 0
        assert "Calling AE Title Not Recognized" in done.stderr
        assert desk.kept() == []


class TestBounds:
    def test_more_associations_than_are_allowed_are_rejected_until_one_ends(
        self, listen: Callable[..., Running]
    ) -> None:
        port = listen(associations=2).port
        with associated(port) as first, associated(port) as second:
            assert first.is_established
            assert second.is_established
            with associated(port) as third:
                assert third.is_rejected

        def again() -> bool:
            with associated(port) as association:
                return bool(association.is_established)

        assert until(again)

    def test_too_large_an_object_ends_the_association_and_leaves_no_file(
        self, desk: Any, listen: Callable[..., Running], make_slices: Slices, tmp_path: Path
    ) -> None:
        small, large = (dcmread(one) for one in make_slices(tmp_path / "in", 2))
        large.Rows, large.Columns, large.PixelData = 2000, 2000, bytes(8_000_000)
        running = listen(instance_bytes=1_000_000)
        with associated(running.port) as association:
            assert association.send_c_store(small).Status == 0x0000
            assert "Status" not in association.send_c_store(large)
            assert until(lambda: association.is_aborted)
        assert until(lambda: running.scratch() == [])
        assert len(desk.kept()) == 1
        with associated(running.port) as association:
            assert association.send_c_store(small).Status == 0x0000

    def test_the_bound_is_of_each_object_and_not_of_all(
        self, desk: Any, listen: Callable[..., Running], make_slices: Slices, tmp_path: Path
    ) -> None:
        files = make_slices(tmp_path / "in", 20)
        size = files[0].stat().st_size
        with associated(listen(instance_bytes=4 * size).port) as association:
            assert store(association, files) == [0x0000] * 20

    def test_an_abort_amid_an_object_leaves_nothing(
        self, desk: Any, listen: Callable[..., Running], make_slices: Slices, tmp_path: Path
    ) -> None:
        running = listen()
        with raw_association(running.port) as peer:
            peer.sendall(pdata(command_of_store(), 0x03) + pdata(bytes(30_000), 0x00))
            assert until(running.scratch)
            peer.sendall(b"\x07\x00\x00\x00\x00\x04\x00\x00\x00\x00")  # A-ABORT
            assert peer.recv(1) == b""
        assert until(lambda: running.scratch() == [])
        assert (desk.kept(), desk.rows) == ([], [])

    def test_a_connection_lost_amid_an_object_leaves_nothing(self, desk: Any, listen: Callable[..., Running]) -> None:
        running = listen()
        with raw_association(running.port) as peer:
            peer.sendall(pdata(command_of_store(), 0x03) + pdata(bytes(30_000), 0x00)[:-100])
            time.sleep(0.1)
        assert until(lambda: running.scratch() == [])
        assert desk.kept() == []

    def test_what_a_crash_left_is_tidied_and_what_is_young_is_not(self, listen: Callable[..., Running]) -> None:
        running = listen(idle_s=5.0)
        old, young = (Path(tempfile.gettempdir()) / name for name in ("old.dcm", "young.dcm"))
        for one in (old, young):
            one.write_bytes(b"part of an object")
        os.utime(old, (time.time() - 100.0,) * 2)
        running.listener.tidy()
        assert running.scratch() == [young]

    def test_a_unit_longer_than_any_is_not_read(self, listen: Callable[..., Running]) -> None:
        running = listen()
        with raw_association(running.port) as peer:
            peer.sendall(struct.pack(">BBL", 0x04, 0, PDU_BYTES_MAX + 1))
            assert peer.recv(1) == b""

    def test_a_peer_that_stops_amid_a_unit_is_hung_up_on(self, listen: Callable[..., Running]) -> None:
        with raw_association(listen(idle_s=0.5).port) as peer:
            peer.sendall(struct.pack(">BBL", 0x04, 0, 1000) + bytes(10))
            assert peer.recv(1) == b""

    def test_a_peer_that_says_nothing_is_hung_up_on(self, listen: Callable[..., Running]) -> None:
        with raw_association(listen(idle_s=0.5).port) as peer:
            assert until(lambda: peer.recv(10)[:1] in (b"", b"\x07"))

    def test_peers_that_connect_and_leave_take_no_place(self, listen: Callable[..., Running]) -> None:
        port = listen(associations=1).port
        for _ in range(3):
            socket.create_connection((LOOPBACK, port)).close()

        def accepted() -> bool:
            with associated(port) as association:
                return bool(association.is_established)

        assert until(accepted)


@contextmanager
def raw_association(port: int) -> Iterator[socket.socket]:
    """A connection on which an association for MR images was accepted, context 1, and nothing else was said."""

    def item(kind: int, content: bytes) -> bytes:
        return struct.pack(">BBH", kind, 0, len(content)) + content

    context = b"\x01\x00\x00\x00" + item(0x30, MRImageStorage.encode()) + item(0x40, ExplicitVRLittleEndian.encode())
    user = item(0x51, struct.pack(">L", 16384)) + item(0x52, b"1.2.3")
    body = item(0x10, b"1.2.840.10008.3.1.1.1") + item(0x20, context) + item(0x50, user)
    request = struct.pack(">HH", 1, 0) + b"NCAGATE".ljust(16) + b"PACS".ljust(16) + bytes(32) + body
    with socket.create_connection((LOOPBACK, port), timeout=WAIT_S) as peer:
        peer.sendall(struct.pack(">BBL", 0x01, 0, len(request)) + request)
        kind, _, length = struct.unpack(">BBL", peer.recv(6, socket.MSG_WAITALL))
        assert kind == 0x02
        peer.recv(length, socket.MSG_WAITALL)
        yield peer


def pdata(content: bytes, control: int) -> bytes:
    """One P-DATA-TF of one fragment."""
    value = struct.pack(">LBB", len(content) + 2, 1, control) + content
    return struct.pack(">BBL", 0x04, 0, len(value)) + value


def command_of_store() -> bytes:
    """The command set of a C-STORE-RQ, implicit little endian."""

    def element(number: int, value: bytes) -> bytes:
        return struct.pack("<HHL", 0, number, len(value)) + value

    kind = MRImageStorage.encode() + b"\0" * (len(MRImageStorage) % 2)
    elements = element(0x0002, kind) + element(0x0100, struct.pack("<H", 1)) + element(0x0110, struct.pack("<H", 7))
    elements += element(0x0700, struct.pack("<H", 0)) + element(0x0800, struct.pack("<H", 1))
    elements += element(0x1000, b"1.2.3.4\0")
    return element(0x0000, struct.pack("<L", len(elements))) + elements


class TestEnd:
    def due_in(self, desk: Any) -> float:
        due_at = desk.row.due_at
        assert due_at is not None
        return float(due_at - desk.clock.now)

    def test_a_release_closes_the_collection_early(
        self, desk: Any, listen: Callable[..., Running], make_slices: Slices, tmp_path: Path
    ) -> None:
        with associated(listen().port) as association:
            store(association, make_slices(tmp_path / "in", 3))
            assert self.due_in(desk) == 10.0
        assert until(lambda: self.due_in(desk) == 0.0)
        assert desk.collection.submit_complete(desk.sent.append) == 1
        assert len(desk.blobs.input_files(desk.sent[0])) == 3

    def test_an_abort_does_not(
        self, desk: Any, listen: Callable[..., Running], make_slices: Slices, tmp_path: Path
    ) -> None:
        running = listen()
        with associated(running.port) as association:
            store(association, make_slices(tmp_path / "in", 3))
            association.abort()
        assert until(lambda: not running.listener._visits)
        assert self.due_in(desk) == 10.0

    def test_a_release_after_every_object_does_not(
        self, desk: Any, listen: Callable[..., Running], make_slices: Slices, tmp_path: Path
    ) -> None:
        running = listen()
        for one in make_slices(tmp_path / "in", 3):
            with associated(running.port) as association:
                store(association, [one])
        assert until(lambda: not running.listener._visits)
        assert self.due_in(desk) == 10.0

    def test_a_release_does_not_while_another_association_sends_the_series(
        self, desk: Any, listen: Callable[..., Running], make_slices: Slices, tmp_path: Path
    ) -> None:
        files = make_slices(tmp_path / "in", 4)
        running = listen()
        with associated(running.port) as one:
            store(one, files[:2])
            with associated(running.port) as other:
                store(other, files[2:])
            assert until(lambda: len(running.listener._visits) == 1)
            assert self.due_in(desk) == 10.0
        assert until(lambda: self.due_in(desk) == 0.0)


@pytest.mark.filterwarnings("ignore:unclosed <s:ResourceWarning")  # pynetdicom leaves one that did not connect
class TestTls:
    def trusting(self, certificate: tuple[Path, Path], *, shown: bool = False) -> tuple[ssl.SSLContext, str]:
        context = ssl.create_default_context(cafile=certificate[0])
        if shown:
            context.load_cert_chain(*certificate)
        return context, "localhost"

    def test_an_object_is_stored(
        self,
        desk: Any,
        listen: Callable[..., Running],
        make_slices: Slices,
        tmp_path: Path,
        certificate: tuple[Path, Path],
    ) -> None:
        running = listen(tls={"certificate": certificate[0], "key": certificate[1]})
        with associated(running.port, tls=self.trusting(certificate)) as association:
            assert store(association, make_slices(tmp_path / "in", 3)) == [0x0000] * 3
        assert len(desk.kept()) == 3

    def test_with_an_authority_a_client_needs_a_certificate(
        self, listen: Callable[..., Running], certificate: tuple[Path, Path]
    ) -> None:
        tls = {"certificate": certificate[0], "key": certificate[1], "authority": certificate[0]}
        port = listen(tls=tls).port
        for shown in (False, True):
            with associated(port, tls=self.trusting(certificate, shown=shown)) as association:
                assert association.is_established is shown

    def test_a_silent_client_keeps_no_other_waiting(
        self, listen: Callable[..., Running], certificate: tuple[Path, Path]
    ) -> None:
        running = listen(tls={"certificate": certificate[0], "key": certificate[1]})
        with (
            socket.create_connection((LOOPBACK, running.port)),
            associated(running.port, tls=self.trusting(certificate)) as association,
        ):
            assert association.send_c_echo().Status == 0x0000

    def test_a_client_without_tls_gets_nowhere(
        self, listen: Callable[..., Running], certificate: tuple[Path, Path]
    ) -> None:
        running = listen(tls={"certificate": certificate[0], "key": certificate[1]})
        with associated(running.port) as association:
            assert not association.is_established
        with associated(running.port, tls=self.trusting(certificate)) as association:
            assert association.is_established

    @pytest.mark.parametrize("tls", [{}, {"certificate": "nothing.pem"}])
    def test_without_a_certificate_that_can_be_read_it_does_not_start(
        self, listen: Callable[..., Running], tls: dict[str, str]
    ) -> None:
        with pytest.raises(InvalidPacsConfigError):
            listen(tls=tls)


class TestStart:
    def test_an_address_that_is_taken_is_told(self, listen: Callable[..., Running]) -> None:
        with pytest.raises(ListenError, match="Address already in use"):
            listen(port=listen().port)


class TestCommand:
    def test_it_takes_associations_and_ends_at_sigterm_with_one_open(self, tmp_path: Path) -> None:
        (port,) = free_ports(1)
        (tmp_path / "pacs.toml").write_text(f'[listen]\nhost = "{LOOPBACK}"\nport = {port}\n')
        chosen = {"NCAGATE_DATA": str(tmp_path / "data"), "NCAGATE_PACS": str(tmp_path / "pacs.toml")}
        command = [sys.executable, "-m", "ncagate.cli", "listen"]
        with subprocess.Popen(command, env=os.environ | chosen, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            while "takes associations on port" not in (line := process.stderr.readline()):
                assert line, "it ended"
            with associated(port) as association, socket.create_connection((LOOPBACK, port)) as halfway:
                assert association.send_c_echo().Status == 0x0000
                halfway.sendall(struct.pack(">BBL", 0x01, 0, 1000) + bytes(10))
                process.send_signal(signal.SIGTERM)
                assert process.wait(WAIT_S) == 0
        assert list((tmp_path / "data" / "blobs" / "tmp").iterdir()) == []
