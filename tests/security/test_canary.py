"""A patient's name that nobody has: it may be in scans and in DICOM results, and nowhere else after a full run."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import redis
from nibabel.nifti1 import Nifti1Extension, Nifti1Image
from pydicom import dcmread
from pynetdicom import AE
from pynetdicom.sop_class import MRImageStorage  # type: ignore[attr-defined]

from ncagate.orthanc import free_ports

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
CANARY = "Zyxwina^Quorra"
TRACES = (b"zyxwina", b"quorra")
PACS = """
quiet_s = 0.5

[listen]
host = "127.0.0.1"
port = {port}

[[route]]
name = "heads"
modality = "MR"
model = "tiny"
destinations = ["archive"]

[[destination]]
name = "archive"
kind = "stow"
url = "http://127.0.0.1:1/dicom-web"
"""
NAMED = {
    "PatientName": CANARY,
    "PatientID": CANARY,
    "ReferringPhysicianName": CANARY,
    "AccessionNumber": CANARY,
    "StudyID": CANARY,
    "StudyDescription": CANARY,
    "SeriesDescription": CANARY,
    "OtherPatientNames": CANARY,
    "PatientComments": CANARY,
    "InstitutionName": CANARY,
    "ProtocolName": CANARY,
}
PLACE = b"111111.5"
"""A number that stands where the name is to stand in its place."""
Slices = Callable[..., list[Path]]


def traces(content: bytes) -> bool:
    """Whether the name, or half of it, is in there: as text, or as UTF-16."""
    lower = content.lower()
    return any(one in lower or one.decode().encode("utf-16-le") in lower for one in TRACES)


def nifti(array: np.ndarray | None = None) -> bytes:
    """A scan whose every free text is the name."""
    if array is None:
        array = np.random.default_rng(0).normal(200, 10, (16, 16, 16)).astype(np.float32)
    image = Nifti1Image(array, np.eye(4))
    header: Any = image.header
    header["descrip"] = header["intent_name"] = header["aux_file"] = header["db_name"] = CANARY.encode()
    header.extensions.append(Nifti1Extension("comment", CANARY.encode()))
    data: bytes = image.to_bytes()
    assert traces(data)
    return data


def zipped(*entries: tuple[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.comment = CANARY.encode()
        for name, data in entries:
            archive.writestr(name, data)
    return buffer.getvalue()


def broken_scans() -> dict[str, list[bytes]]:
    nan = np.zeros((16, 16, 16), np.float32)
    nan[1, 2, 3] = np.nan
    return {
        "cut": [nifti()[:-500]],
        "cut gzip": [gzip.compress(nifti())[:-300]],
        "not finite": [nifti(nan)],
        "flat": [nifti(np.zeros((16, 16), np.float32))],
        "text": [f"{CANARY} is no scan".encode() * 100],
        "climbing": [zipped((f"../{CANARY}.nii", nifti()))],
        "two": [zipped((f"{CANARY}.nii", nifti()), (f"{CANARY}2.nii", nifti()))],
        "notes": [zipped((f"{CANARY}.txt", CANARY.encode() * 50))],
        "magic": [b"DICM" + CANARY.encode() * 100],
    }


def broken_series(make_slices: Slices, folder: Path) -> dict[str, list[bytes]]:
    """Series whose numbers, characters or sizes are the name, or that lack something."""

    def series(name: str, **changes: Any) -> list[bytes]:
        return [
            one.read_bytes()
            for one in make_slices(folder / name, 6, uid=f"1.2.{zlib.crc32(name.encode())}.7", **NAMED | changes)
        ]

    def replaced(name: str, **changes: Any) -> list[bytes]:
        files = series(name, **changes)
        assert any(PLACE in one for one in files)
        return [one.replace(PLACE, b"Quorra^9") for one in files]

    named = series("named")
    return {
        "place": replaced("place", ImagePositionPatient=[PLACE.decode(), 0, 1]),
        "spacing": replaced("spacing", PixelSpacing=[PLACE.decode(), PLACE.decode()]),
        "orientation": replaced("orientation", ImageOrientationPatient=[PLACE.decode(), 0, 0, 0, 1, 0]),
        "slope": replaced("slope", RescaleSlope=PLACE.decode(), RescaleIntercept="0"),
        "uid": replaced("uid", FrameOfReferenceUID=PLACE.decode()),
        "characters": [
            one.replace(b"ISO_IR 192", b"Quorra^999") for one in series("c", SpecificCharacterSet="ISO_IR 192")
        ],
        "gap": [one for number, one in enumerate(named) if number != 2],
        "twice": [*named, named[0]],
        "colour": [one.replace(b"MONOCHROME2", b"ZYXWINA_QUO") for one in named],
        "cut": [one[:-100] for one in named],
        "syntax": [one.replace(b"1.2.840.10008.1.2.1\0", b"Zyxwina^Quorra.2.1\0\0") for one in named],
        "pixels": series("pixels", BitsStored=99),
        "one": named[:1],
    }


class Run:
    """A service, and all that it says in the run."""

    def __init__(self, stack: Any, port: int) -> None:
        self.stack, self.port = stack, port
        self.said: list[tuple[str, bytes]] = []

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        answer: httpx.Response = self.stack.client.request(method, path, **options)
        self.said.append((f"{method} {path} {answer.status_code}", str(answer.headers).encode() + answer.content))
        return answer

    def segment(self, files: list[bytes], **fields: str) -> str:
        """Submit, and wait for the end; the job's state and code."""
        parts = [("scan", (f"{CANARY}_{number}.nii.gz", one)) for number, one in enumerate(files)]
        headers = {"X-Request-ID": CANARY.replace("^", "-")}
        answer = self.ask("POST", "/segment", files=parts, data={"model": "tiny", **fields}, headers=headers)
        assert answer.status_code == 202, answer.text
        location = answer.headers["location"]
        self.stack.finished(location)
        self.ask("GET", f"{location}/events")
        job = self.ask("GET", location).json()
        for name in ("mask", "uncertainty", "preview", "report"):
            self.ask("GET", f"{location}/{name}")
        return job["state"] if job["error"] is None else str(job["error"]["code"])

    def store(self, files: list[bytes]) -> int:
        body = b"".join(b"--b\r\nContent-Type: application/dicom\r\n\r\n" + one + b"\r\n" for one in files)
        headers = {"Content-Type": 'multipart/related; type="application/dicom"; boundary=b'}
        return self.ask("POST", "/dicomweb/studies", content=body + b"--b--\r\n", headers=headers).status_code

    def associate(self, files: list[bytes]) -> list[int]:
        """C-STORE; the statuses."""
        entity = AE(ae_title="PACS")
        entity.add_requested_context(MRImageStorage)
        association = entity.associate("127.0.0.1", self.port, ae_title="NCAGATE")
        assert association.is_established
        statuses = [int(association.send_c_store(dcmread(io.BytesIO(one))).Status) for one in files]
        association.release()
        return statuses

    def settled(self) -> None:
        """Wait until nothing is collecting, queued or running."""
        deadline = time.monotonic() + 60.0
        while True:
            series = self.stack.client.get("/series").json()["series"]
            jobs = self.stack.client.get("/jobs?limit=500").json()["jobs"]
            states = {one["state"] for one in (*series, *jobs)}
            if not states & {"collecting", "queued", "running"}:
                return
            assert time.monotonic() < deadline, states
            time.sleep(0.1)


@pytest.fixture(scope="module")
def run(served: Any, make_slices: Slices, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """The whole run: good scans and bad ones, by every way in; keys, cancelling, erasing, reading."""
    folder = tmp_path_factory.mktemp("canary")
    (port,) = free_ports(1)
    (folder / "pacs.toml").write_text(PACS.format(port=port))
    with served(NCAGATE_PACS=str(folder / "pacs.toml"), NCAGATE_LOG_FORMAT="json") as stack:
        run = Run(stack, port)
        good = [one.read_bytes() for one in make_slices(folder / "good", 18, uid="1.2.826.0.1.5", **NAMED)]
        other = [one.read_bytes() for one in make_slices(folder / "other", 18, uid="1.2.826.0.1.6", **NAMED)]
        assert run.segment([nifti()]) == run.segment(good) == run.segment([zipped(("a.nii", nifti()))]) == "succeeded"
        for name, files in (broken_scans() | broken_series(make_slices, folder)).items():
            run.segment(files, seed=str(len(name)))
            run.store(files)
        assert (run.store(good), run.associate(other)) == (200, [0] * 18)
        run.settled()
        refused(run)
        for job in stack.client.get("/jobs?limit=500").json()["jobs"]:
            run.ask("GET", f"/jobs/{job['id']}")
        for path in ("/jobs?limit=500", "/series", "/metrics", "/models", "/livez", "/readyz", "/openapi.json"):
            run.ask("GET", path)
        yield run


def refused(run: Run) -> None:
    """Requests that the gateway itself refuses."""
    scan = {"scan": (f"{CANARY}.nii.gz", nifti())}
    run.ask("POST", "/segment", files={"scan": (f"{CANARY}.nii", b"")}, data={"model": "tiny"})
    run.ask("POST", "/segment", files=scan, data={"model": "tiny", "members": "0"})
    run.ask("POST", "/segment", files=scan, data={"model": "tiny", "version": "9.9"})
    run.ask("POST", "/segment", files=scan, data={"model": "tiny"}, headers={"Accept": "text/html"})
    run.ask("POST", "/segment", content=nifti(), headers={"Content-Disposition": f"filename={CANARY}"})
    head = f'--b\r\nContent-Disposition: form-data; name="scan"; filename="{CANARY}"\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    run.ask("POST", "/segment", content=f"{head}X: {'y' * 9000}".encode(), headers=headers)
    run.ask("POST", "/segment", content=f"{head}\r\n{CANARY}".encode(), headers=headers)
    run.ask("GET", f"/dicomweb/studies?PatientName={CANARY}")
    run.ask("GET", f"/jobs?state={CANARY[:3]}")
    run.ask("GET", "/jobs", headers={"X-Request-ID": CANARY.replace("^", "-"), "traceparent": CANARY})
    with suppress(httpx.HTTPError):
        run.ask("POST", "/segment", files=scan, headers={"Authorization": f"Basic {CANARY}"})


class TestCanary:
    def test_the_run_was_one(self, run: Run) -> None:
        states = {one["state"] for one in run.stack.client.get("/jobs?limit=500").json()["jobs"]}
        assert states == {"succeeded", "failed"}
        codes = {one["error"]["code"] for one in run.stack.client.get("/jobs?limit=500").json()["jobs"] if one["error"]}
        assert len(codes) >= 8, codes

    def test_no_answer_has_the_name(self, run: Run) -> None:
        assert len(run.said) > 100
        assert [where for where, content in run.said if traces(content)] == []

    def test_no_line_of_a_log_has_it(self, run: Run) -> None:
        lines = run.stack.log().splitlines()
        output = run.stack.process.stdout
        os.set_blocking(output.fileno(), False)
        printed = os.read(output.fileno(), 1 << 20)
        logs = [path.read_bytes() for path in run.stack.data.rglob("*.log")]
        assert [line for line in (*lines, printed.decode()) if traces(line.encode())] == []
        assert not any(map(traces, logs))
        states = {json.loads(line).get("state") for line in lines if line.startswith("{")}
        assert states >= {"queued", "running", "succeeded", "failed"}
        assert "Traceback" not in run.stack.log()

    def test_no_row_of_the_database_and_no_message_has_it(self, run: Run) -> None:
        data = run.stack.data
        for path in data.glob("ncagate.db*"):
            assert not traces(path.read_bytes()), path.name
        client = redis.Redis(unix_socket_path=str(data / "redis.sock"))
        for key in client.scan_iter():
            assert not traces(key + (client.dump(key) or b""))
        assert b"ncagate" in (data / "ncagate.db").read_bytes() or (data / "ncagate.db-wal").exists()
        client.close()

    def test_no_name_of_a_file_or_process_has_it(self, run: Run) -> None:
        assert [path for path in run.stack.data.rglob("*") if traces(str(path).encode())] == []
        for process in run.stack.family():
            assert not traces(" ".join(process.cmdline()).encode())
            files = [one.path for one in process.open_files()]
            assert not traces(" ".join(files).encode())

    def test_it_is_in_scans_and_dicom_results_and_in_no_other_file(self, run: Run) -> None:
        holding = {
            path.relative_to(run.stack.data)
            for path in run.stack.data.rglob("*")
            if path.is_file() and traces(path.read_bytes())
        }
        rest = {
            path
            for path in holding
            if path.parts[:2] != ("blobs", "series")
            and path.parent.name != "input"
            and path.name not in ("segmentation.dcm", "segmentation.json", "report.dcm", "report.json")
        }
        assert rest == set()
        assert len(holding) > 20

    def test_the_audit_log_tells_of_it_without_the_name(self, run: Run) -> None:
        command = [*run.stack.process.args[:3], "audit", "--data", str(run.stack.data)]
        told = subprocess.run(command, check=True, capture_output=True).stdout
        assert told.count(b"\n") > 40
        assert not traces(told)

    def test_erasing_leaves_nothing_of_it(self, run: Run) -> None:
        for _ in range(2):
            for job in run.stack.client.get("/jobs?limit=500").json()["jobs"]:
                run.stack.client.delete(f"/jobs/{job['id']}")
        left = [path for path in (run.stack.data / "blobs" / "jobs").rglob("*") if path.is_file()]
        assert left == []
