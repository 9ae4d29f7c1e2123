"""STOW-RS: what archives send, by a client of others' making and by hand."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from dicomweb_client import DICOMwebClient
from pydicom import dcmread

from pacs.files import SeriesFiles
from pacs.statuses import CANNOT_UNDERSTAND, DUPLICATE, OTHER_STUDY

WAIT_S = 20.0
Slices = Callable[..., list[Path]]
ROUTES = """
quiet_s = 0.2

[[route]]
name = "heads"
modality = "MR"
model = "tiny"
"""
STOW = 'multipart/related; type="application/dicom"; boundary=b'
PART = b"Content-Type: application/dicom\r\n\r\n"


def body(parts: Sequence[bytes], *, head: bytes = PART, end: bytes = b"--b--\r\n") -> bytes:
    return b"".join(b"--b\r\n" + head + one + b"\r\n" for one in parts) + end


def post(service: Any, content: bytes, path: str = "", **headers: str) -> httpx.Response:
    told = {"Content-Type": STOW, **{name.replace("_", "-"): value for name, value in headers.items()}}
    answer: httpx.Response = service.client.post(f"/dicomweb/studies{path}", content=content, headers=told)
    return answer


def instances(answer: httpx.Response, sequence: str) -> list[str]:
    items = answer.json().get(sequence, {}).get("Value", [])
    return [one["00081155"]["Value"][0] if "00081155" in one else "" for one in items]


def reasons(answer: httpx.Response) -> list[int]:
    return [one["00081197"]["Value"][0] for one in answer.json()["00081198"]["Value"]]


def stored(answer: httpx.Response) -> list[str]:
    return instances(answer, "00081199")


def failed(answer: httpx.Response) -> list[str]:
    return instances(answer, "00081198")


def kept(service: Any) -> list[Path]:
    return list((service.blobs / "series").glob("*/*"))


@pytest.fixture
def service(serve: Callable[..., Any], broker: Any, tmp_path: Path) -> Any:
    path = tmp_path / "pacs.toml"
    path.write_text(ROUTES)
    return serve(redis_url=broker.url, pacs=path, files_max=12, body_bytes_max=500_000, reconcile_s=60.0)


@pytest.fixture
def files(make_slices: Slices, tmp_path: Path) -> list[Path]:
    return make_slices(tmp_path / "in", 3)


@pytest.fixture
def objects(files: list[Path]) -> list[bytes]:
    return [one.read_bytes() for one in files]


@pytest.fixture
def clean(service: Any) -> Iterator[None]:
    """Nothing of what the test sends is kept."""
    yield
    assert service.until_clean()
    assert kept(service) == []
    assert service.client.get("/series").json() == {"series": []}


class TestStore:
    def test_all_are_stored_and_named(self, service: Any, files: list[Path], objects: list[bytes]) -> None:
        answer = post(service, body(objects))
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/dicom+json")
        assert stored(answer) == [dcmread(one).SOPInstanceUID for one in files]
        assert answer.json().keys() == {"00081199"}
        assert sorted(one.read_bytes() for one in kept(service)) == sorted(objects)
        assert service.until_clean()

    def test_a_client_of_others_making_is_understood(self, service: Any, files: list[Path]) -> None:
        client = DICOMwebClient(f"http://127.0.0.1:{service.port}/dicomweb")
        answer = client.store_instances([dcmread(one) for one in files])
        assert len(answer.ReferencedSOPSequence) == 3
        assert "FailedSOPSequence" not in answer

    def test_the_same_again_is_stored(self, service: Any, objects: list[bytes]) -> None:
        for _ in range(2):
            answer = post(service, body(objects))
            assert (answer.status_code, len(stored(answer))) == (200, 3)
        assert len(kept(service)) == 3

    def test_some_are_stored_and_the_others_told_with_their_reasons(
        self, service: Any, objects: list[bytes], make_slices: Slices, tmp_path: Path
    ) -> None:
        post(service, body(objects[:1]))
        (other,) = make_slices(tmp_path / "other", 1, PatientID="P2")
        answer = post(service, body([other.read_bytes(), b"text", objects[1]]))
        assert answer.status_code == 202
        assert stored(answer) == [dcmread_uid(objects[1])]
        assert (failed(answer), reasons(answer)) == ([dcmread_uid(objects[0]), ""], [DUPLICATE, CANNOT_UNDERSTAND])

    def test_none_is_stored(self, service: Any, clean: None) -> None:
        answer = post(service, body([b"text", b""]))
        assert (answer.status_code, reasons(answer)) == (409, [CANNOT_UNDERSTAND] * 2)

    def test_of_another_study_than_the_address_names_none_is_stored(
        self, service: Any, objects: list[bytes], clean: None
    ) -> None:
        answer = post(service, body(objects[:1]), "/1.2.3")
        assert (answer.status_code, reasons(answer)) == (409, [OTHER_STUDY])

    def test_of_the_study_that_the_address_names_all_are_stored(self, service: Any, objects: list[bytes]) -> None:
        assert post(service, body(objects), "/1.2.826.0.1.5.1").status_code == 200


def dcmread_uid(content: bytes) -> str:
    return str(dcmread(BytesIO(content)).SOPInstanceUID)


@pytest.mark.usefixtures("clean")
class TestRefusal:
    @pytest.mark.parametrize(
        ("change", "headers", "status", "code"),
        [
            ({"end": b""}, {}, 400, "upload_incomplete"),
            ({"head": b"no header at all"}, {}, 400, "malformed_upload"),
            ({}, {"Content_Type": "multipart/related"}, 400, "malformed_upload"),
            ({}, {"Content_Type": "multipart/form-data; boundary=b"}, 415, "unsupported_media_type"),
            ({}, {"Content_Type": "application/dicom"}, 415, "unsupported_media_type"),
            ({}, {"Content_Encoding": "gzip"}, 415, "unsupported_media_type"),
            ({"head": b"Content-Type: application/dicom+json\r\n\r\n"}, {}, 415, "unsupported_media_type"),
            ({}, {"Accept": "application/dicom+xml"}, 406, "not_acceptable"),
        ],
    )
    def test_nothing_of_a_body_that_is_refused_is_kept(
        self,
        service: Any,
        objects: list[bytes],
        change: dict[str, bytes],
        headers: dict[str, str],
        status: int,
        code: str,
    ) -> None:
        answer = post(service, body(objects, **change), **headers)
        assert (answer.status_code, answer.json()["code"]) == (status, code)

    def test_without_a_part_there_is_nothing_to_store(self, service: Any) -> None:
        answer = post(service, b"--b--\r\n")
        assert (answer.status_code, answer.json()["code"]) == (422, "missing_scan")

    def test_too_many_parts(self, service: Any, objects: list[bytes]) -> None:
        answer = post(service, body(objects * 5))
        assert (answer.status_code, answer.json()["code"]) == (413, "too_many_files")

    def test_too_large_a_body(self, service: Any) -> None:
        answer = post(service, body([bytes(600_000)]))
        assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")

    def test_a_client_that_goes_away(self, service: Any, objects: list[bytes]) -> None:
        content = body(objects)
        head = "POST /dicomweb/studies HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        head += f"Content-Type: {STOW}\r\nContent-Length: {len(content)}"
        with socket.create_connection(("127.0.0.1", service.port)) as peer:
            peer.sendall(head.encode() + b"\r\n\r\n" + content[:-50])
            deadline = time.monotonic() + WAIT_S
            while not service.leftovers():  # what it shall clean away has to be there first
                assert time.monotonic() < deadline
                time.sleep(0.02)


class TestSeries:
    def test_one_that_comes_in_several_requests_becomes_one_job(
        self, service: Any, make_slices: Slices, tmp_path: Path
    ) -> None:
        files = make_slices(tmp_path / "many", 40)
        for start in range(0, 40, 10):
            assert post(service, body([one.read_bytes() for one in files[start : start + 10]])).status_code == 200
        (series,) = service.client.get("/series").json()["series"]
        assert (series["state"], series["sender"], series["job"]) == ("collecting", "dicomweb", None)
        job = made(service)
        assert len(service.gateway.blobs.input_files(job.id)) == 40
        (series,) = service.client.get("/series", params={"state": "submitted"}).json()["series"]
        assert (series["job"], series["route"]) == (f"/jobs/{job.id}", "heads")
        assert series["series_uid"] == dcmread(files[0]).SeriesInstanceUID

    def test_erasing_its_job_erases_it(self, service: Any, objects: list[bytes]) -> None:
        post(service, body(objects))
        job = made(service)
        service.fail(job.id)
        assert service.client.delete(f"/jobs/{job.id}").status_code == 204
        assert service.client.get("/series").json() == {"series": []}
        assert SeriesFiles(service.blobs).instances(job.id) == []
        assert kept(service) == []


def made(service: Any) -> Any:
    """The one job that comes of what was sent, once the reconciler has looked."""
    deadline = time.monotonic() + 20.0
    while not (jobs := service.gateway.repository.list()) and time.monotonic() < deadline:
        service.gateway.reconcile()
        time.sleep(0.05)
    (job,) = jobs
    return job
