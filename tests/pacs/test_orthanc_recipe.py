"""docker/orthanc against a real Orthanc: what it sends on, when, how, and what it keeps to itself.

ncagate is played by an HTTP server that writes down what arrives, and by DCMTK's storescp.
"""

import io
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread

from imaging.dicom_about import About, CodedSegment
from imaging.dicom_seg import write_segmentation
from imaging.dicom_series import read_dicom_series
from imaging.dicom_sr import Finding, write_report
from imaging.limits import Limits
from ncagate.orthanc import LOOPBACK, Orthanc, OrthancError, free_ports, program

Start = Callable[..., AbstractContextManager[Orthanc]]
WAIT_S = 30.0
SLICES = 32
STOW_RS = "multipart/related; type=application/dicom"


class Recorder:
    """A STOW-RS server that keeps every instance, and can be told to refuse."""

    def __init__(self) -> None:
        self.posts: list[list[Dataset]] = []
        self.requests: list[tuple[str, str, str]] = []
        self.refused = 0
        self.refuses = False
        self.server = ThreadingHTTPServer((LOOPBACK, 0), _handler(self))

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.server.server_address[1]}/dicomweb"

    @property
    def instances(self) -> list[Dataset]:
        return [one for post in self.posts for one in post]

    def of(self, modality: str) -> int:
        return sum(one.Modality == modality for one in self.instances)


def _handler(recorder: Recorder) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self._body()
            kind, transfer = self.headers["Content-Type"].replace('"', ""), self.headers["Transfer-Encoding"]
            recorder.requests.append((self.path, kind.partition("; boundary")[0], transfer))
            if recorder.refuses:
                recorder.refused += 1
                self.send_response(503)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            instances: list[Dataset] = [dcmread(io.BytesIO(part)) for part in _parts(self.headers, body)]
            answer = _stored(instances)
            self.send_response(200)
            self.send_header("Content-Type", "application/dicom+json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)
            recorder.posts.append(instances)

        def _body(self) -> bytes:
            if self.headers["Transfer-Encoding"] != "chunked":
                return self.rfile.read(int(self.headers["Content-Length"]))
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class names it so
            return None

    return Handler


def _parts(headers: Message, body: bytes) -> list[bytes]:
    boundary = str(headers.get_param("boundary")).encode()
    sections = body.split(b"--" + boundary)[1:-1]
    return [section.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n") for section in sections]


def _stored(instances: Sequence[Dataset]) -> bytes:
    """The answer of DICOM part 18, 10.5.3: all were stored."""
    answer, references = Dataset(), []
    for one in instances:
        reference = Dataset()
        reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = one.SOPClassUID, one.SOPInstanceUID
        references.append(reference)
    answer.ReferencedSOPSequence = references
    return answer.to_json().encode()


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    made = Recorder()
    thread = threading.Thread(target=made.server.serve_forever)
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


@pytest.fixture(scope="session")
def scan(shared_data: Path) -> list[Path]:
    """A real MR series."""
    return sorted((shared_data / "dicom" / "hippocampus_crop_1").glob("*.dcm"))


@pytest.fixture(scope="session")
def another(shared_data: Path) -> list[Path]:
    """Another real MR series, of which the last slices suffice to see that an event was worked on."""
    return sorted((shared_data / "dicom" / "hippocampus_crop_2").glob("*.dcm"))[:3]


@pytest.fixture(scope="session")
def results(scan: list[Path], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """SEG and SR of the scan, as ncagate writes them."""
    folder = tmp_path_factory.mktemp("results")
    volume = read_dicom_series(scan, limits=Limits())
    labels: np.ndarray = np.zeros(volume.array.shape, np.uint8)
    labels[10:20, 10:20, 10:20] = 1
    about = About("a result", datetime(2026, 1, 1, tzinfo=UTC), "hippocampus", "1", "accept")
    segment = CodedSegment(1, "hippocampus", "SCT", "5366008", "Hippocampus")
    finding = Finding("hippocampus", segment, 1, "accept", [], 1.0, 0.1, 0.9, (0.8, 0.95))
    mask, report = folder / "segmentation.dcm", folder / "report.dcm"
    write_segmentation(mask, labels, source=volume.source, segments=[segment], about=about)
    write_report(report, [finding], source=volume.source, segmentation=mask, about=about)
    return [mask, report]


def until(done: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not done():
        assert time.monotonic() < deadline, f"in vain waited until {what}"
        time.sleep(0.05)


def stable(orthanc: Orthanc, count: int) -> bool:
    """Whether so many series have become stable."""
    changes = orthanc.client.get("/changes", params={"limit": 1000}).raise_for_status().json()["Changes"]
    return [one["ChangeType"] for one in changes].count("StableSeries") >= count


class TestStow:
    def test_a_series_is_posted_whole_in_one_chunked_request(
        self, orthanc: Start, recorder: Recorder, scan: list[Path]
    ) -> None:
        """So it is with the DICOMweb plugin 1.x; the 0.x, which nobody has to use, sent ten instances at a time."""
        with orthanc(NCAGATE_DICOMWEB=recorder.url) as running:
            running.store(scan)
            until(lambda: len(recorder.instances) >= SLICES, "the series arrived")
        sent = {dcmread(path, stop_before_pixels=True).SOPInstanceUID for path in scan}
        assert {one.SOPInstanceUID for one in recorder.instances} == sent
        assert recorder.requests == [("/dicomweb/studies", STOW_RS, "chunked")]
        pixels = {one.SOPInstanceUID: one.PixelData for one in recorder.instances}
        assert all(pixels[one.SOPInstanceUID] == one.PixelData for one in map(dcmread, scan))

    def test_what_comes_back_is_not_sent_again(
        self, orthanc: Start, recorder: Recorder, scan: list[Path], another: list[Path], results: list[Path]
    ) -> None:
        with orthanc(NCAGATE_DICOMWEB=recorder.url) as running:
            running.store(scan)
            until(lambda: len(recorder.instances) >= SLICES, "the series arrived")
            running.store(results)
            until(lambda: stable(running, 3), "the results were stable")
            running.store(another)
            until(lambda: len(recorder.instances) >= SLICES + len(another), "the next series arrived")
            (study,) = {dcmread(path, stop_before_pixels=True).StudyInstanceUID for path in (*scan, *results)}
            found = Counter(one["MainDicomTags"]["Modality"] for one in running.series(study))
        assert found == {"MR": 1, "SEG": 1, "SR": 1}
        assert len(recorder.instances) == recorder.of("MR") == SLICES + len(another)

    def test_a_series_that_grew_is_sent_again(self, orthanc: Start, recorder: Recorder, scan: list[Path]) -> None:
        with orthanc(NCAGATE_DICOMWEB=recorder.url) as running:
            running.store(scan[:20])
            until(lambda: len(recorder.instances) >= 20, "the first slices arrived")
            running.store(scan[20:])
            until(lambda: len(recorder.instances) >= 20 + SLICES, "the whole series arrived")
        assert len({one.SOPInstanceUID for one in recorder.instances[20:]}) == SLICES

    def test_a_series_that_is_stored_a_second_time_is_not_sent_again(
        self, orthanc: Start, recorder: Recorder, scan: list[Path], another: list[Path]
    ) -> None:
        with orthanc(NCAGATE_DICOMWEB=recorder.url) as running:
            running.store(scan)
            until(lambda: " sent" in running.log.read_text(), "the series arrived")
            (sent,) = running.series()
            state, update = (
                running.client.get(f"/series/{sent['ID']}/metadata/{name}").raise_for_status().text
                for name in ("ncagate", "LastUpdate")
            )
            assert state == update  # what the script goes by, should a later Orthanc call the series stable again
            running.store(scan)
            running.store(another)
            until(lambda: len(recorder.instances) >= SLICES + len(another), "the next series arrived")
        assert len({one.SOPInstanceUID for one in recorder.instances}) == len(recorder.instances)

    def test_what_ncagate_could_not_take_is_sent_later(
        self, orthanc: Start, recorder: Recorder, scan: list[Path], another: list[Path]
    ) -> None:
        recorder.refuses = True
        with orthanc(NCAGATE_DICOMWEB=recorder.url, NCAGATE_RETRY_AFTER_S="0") as running:
            running.store(scan)
            until(lambda: "could not be sent" in running.log.read_text(), "the failure was told")
            assert recorder.refused > 0
            recorder.refuses = False
            running.store(another)
            until(lambda: len(recorder.instances) >= SLICES + len(another), "both series arrived")
            (owner,) = {dcmread(path, stop_before_pixels=True).PatientID for path in scan}
            assert owner not in running.log.read_text()

    def test_only_the_chosen_modalities_are_sent(
        self, orthanc: Start, recorder: Recorder, scan: list[Path], shared_data: Path
    ) -> None:
        with orthanc(NCAGATE_DICOMWEB=recorder.url, NCAGATE_MODALITIES="CT, PT") as running:
            running.store(scan)
            until(lambda: stable(running, 1), "the MR series was stable")
            running.store(sorted((shared_data / "dicom" / "dcmqi_seg").glob("*.dcm")))
            until(lambda: recorder.of("CT") > 0, "the CT series arrived")
        assert recorder.of("MR") == 0


class TestCStore:
    def test_a_series_is_sent_by_c_store(self, orthanc: Start, scan: list[Path], tmp_path: Path) -> None:
        (port,) = free_ports(1)
        received = tmp_path / "received"
        received.mkdir()
        command = [program("storescp"), "--aetitle", "NCAGATE", "--output-directory", str(received), str(port)]
        storescp = subprocess.Popen(command)
        try:
            with orthanc(NCAGATE_KIND="cstore", NCAGATE_DICOM_PORT=str(port)) as running:
                running.store(scan)
                until(lambda: len(list(received.iterdir())) >= SLICES, "the series arrived")
                until(lambda: " sent" in running.log.read_text(), "the job ended")
        finally:
            storescp.terminate()
            storescp.wait()
        volumes = [read_dicom_series(sorted(files), limits=Limits()) for files in (scan, received.iterdir())]
        np.testing.assert_array_equal(volumes[0].array, volumes[1].array)


class TestConfiguration:
    @pytest.mark.parametrize(("name", "value"), [("ORTHANC_PASSWORD", ""), ("NCAGATE_KIND", "pigeon")])
    def test_orthanc_does_not_start_without_a_password_or_a_way_to_send(
        self, orthanc: Start, name: str, value: str
    ) -> None:
        with pytest.raises(OrthancError, match=name), orthanc(**{name: value}):
            pass

    def test_nobody_gets_in_without_the_password(self, orthanc: Start) -> None:
        with orthanc() as running:
            assert running.client.get("/system", auth=("ncagate", "wrong")).status_code == 401
