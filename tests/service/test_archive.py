"""QIDO-RS and WADO-RS over what the real worker made of two series, read by a client of others' making."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from dicomweb_client import DICOMwebClient
from pydicom import dcmread

from jobs.models import JobRequest
from ncagate.settings import Settings
from worker.run import Runner

STUDY = "1.2.826.0.1.5.1"
NAMES = ("segmentation.dcm", "report.dcm")


class Archive:
    """A gateway with the results of two jobs, the older one on ``STUDY``."""

    def __init__(self, service: Any, jobs: list[str]) -> None:
        self.service, self.jobs = service, jobs
        self.client = DICOMwebClient(f"http://127.0.0.1:{service.port}/dicomweb")

    def get(self, path: str, **headers: str) -> httpx.Response:
        answer: httpx.Response = self.service.client.get(f"/dicomweb{path}", headers=headers)
        return answer

    def files(self, job_id: str) -> list[bytes]:
        folder = self.service.gateway.blobs.result_dir(job_id, 1)
        return [(folder / name).read_bytes() for name in NAMES]

    def of(self, job_id: str, name: str) -> Any:
        return dcmread(BytesIO(self.files(job_id)[NAMES.index(name)]))


@pytest.fixture(scope="module")
def archive(
    serving: Any, shared_redis: Any, make_slices: Callable[..., list[Path]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Archive]:
    folder = tmp_path_factory.mktemp("archive")
    with serving(folder, redis_url=shared_redis.url) as service:
        settings = service.gateway.settings
        runner = Runner(Settings(data=settings.data, store=settings.models, threads=1, engine="torch"))
        jobs = []
        for uid in ("1.2.826.0.1.5", "1.2.826.0.1.6"):
            job_id = uuid4().hex
            with service.gateway.blobs.staging() as staged:
                for one in make_slices(folder / uid, 18, uid=uid):
                    shutil.copy(one, staged)
                service.gateway.blobs.commit_input(staged, job_id)
            request = JobRequest(
                model="tiny", version="1.0.0", min_dice=0.8, members=3, destinations=("archive", "second")
            )
            service.gateway.repository.create(job_id, request)
            runner.run_next()
            jobs.append(job_id)
        assert [service.gateway.repository.get(one).state.value for one in jobs] == ["succeeded"] * 2
        yield Archive(service, jobs)
        runner.repository.close()


def values(found: list[dict[str, dict[str, Any]]], tag: str) -> list[str]:
    return [one[tag]["Value"][0] for one in found]


class TestSearch:
    def test_studies_that_of_the_newest_job_first(self, archive: Archive) -> None:
        found = archive.client.search_for_studies()
        assert values(found, "0020000D") == ["1.2.826.0.1.6.1", STUDY]
        assert found[1]["00100020"]["Value"] == ["P1"]
        assert sorted(found[1]["00080061"]["Value"]) == ["SEG", "SR"]
        assert (values(found, "00201206"), values(found, "00201208")) == ([2, 2], [2, 2])

    def test_series_and_instances_of_a_study(self, archive: Archive) -> None:
        series = archive.client.search_for_series(STUDY)
        assert sorted(values(series, "00080060")) == ["SEG", "SR"]
        found = archive.client.search_for_instances(STUDY)
        wanted = {dcmread(BytesIO(one)).SOPInstanceUID for one in archive.files(archive.jobs[0])}
        assert set(values(found, "00080018")) == wanted

    def test_all_series_and_instances(self, archive: Archive) -> None:
        assert len(archive.client.search_for_series()) == 4
        assert len(archive.client.search_for_instances()) == 4

    def test_instances_of_a_series(self, archive: Archive) -> None:
        one = archive.of(archive.jobs[0], "report.dcm")
        found = archive.client.search_for_instances(STUDY, one.SeriesInstanceUID)
        assert values(found, "00080018") == [one.SOPInstanceUID]

    def test_filters_are_heeded_by_name_and_by_tag(self, archive: Archive) -> None:
        seg = archive.of(archive.jobs[1], "segmentation.dcm")
        for filters in (
            {"SOPInstanceUID": seg.SOPInstanceUID},
            {"00080018": seg.SOPInstanceUID},
            {"Modality": "SEG", "StudyInstanceUID": seg.StudyInstanceUID},
            {"SOPClassUID": seg.SOPClassUID, "SeriesInstanceUID": seg.SeriesInstanceUID},
        ):
            assert values(archive.client.search_for_instances(search_filters=filters), "00080018") == [
                seg.SOPInstanceUID
            ]
        assert archive.client.search_for_studies(search_filters={"StudyInstanceUID": "1.2.3"}) == []

    def test_a_list_of_identifiers_finds_each(self, archive: Archive) -> None:
        found = archive.get(f"/studies?StudyInstanceUID={STUDY},1.2.826.0.1.6.1,1.2.3").json()
        assert len(found) == 2

    def test_a_filter_does_not_lead_out_of_the_study_of_the_address(self, archive: Archive) -> None:
        assert archive.get(f"/studies/{STUDY}/series?StudyInstanceUID=1.2.826.0.1.6.1").json() == []

    def test_pages_are_of_what_is_searched_for(self, archive: Archive) -> None:
        assert values(archive.client.search_for_studies(limit=1), "0020000D") == ["1.2.826.0.1.6.1"]
        assert values(archive.client.search_for_studies(limit=5, offset=1), "0020000D") == [STUDY]
        assert archive.client.search_for_studies(limit=5, offset=2) == []

    @pytest.mark.parametrize(
        "query", ["PatientName=Doe", "PatientID=P1", "colour=red", "limit=0", "offset=-1", "limit=x"]
    )
    def test_what_is_not_searched_by_is_refused(self, archive: Archive, query: str) -> None:
        answer = archive.get(f"/studies?{query}")
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_parameter")

    def test_what_is_passed_over_is_said_in_the_standard(self, archive: Archive) -> None:
        assert len(archive.get("/studies?includefield=all&fuzzymatching=true").json()) == 2


class TestRetrieve:
    def test_a_client_of_others_making_gets_the_files_as_they_are(self, archive: Archive) -> None:
        for job_id in archive.jobs:
            wanted = [dcmread(BytesIO(one)) for one in archive.files(job_id)]
            assert archive.client.retrieve_study(wanted[0].StudyInstanceUID) == wanted
            for one in wanted:
                where = (one.StudyInstanceUID, one.SeriesInstanceUID)
                assert archive.client.retrieve_series(*where) == [one]
                assert archive.client.retrieve_instance(*where, one.SOPInstanceUID) == one

    def test_the_bytes_are_those_of_the_files(self, archive: Archive) -> None:
        answer = archive.get(f"/studies/{STUDY}", accept='multipart/related; type="application/dicom"')
        boundary = answer.headers["Content-Type"].partition("boundary=")[2].encode()
        parts = answer.content.split(b"--" + boundary)[1:-1]
        head = b"\r\nContent-Type: application/dicom\r\n\r\n"
        assert [one.removeprefix(head).removesuffix(b"\r\n") for one in parts] == archive.files(archive.jobs[0])

    @pytest.mark.parametrize("accept", ["application/dicom+json", "image/png", "application/dicom"])
    def test_what_is_not_on_offer(self, archive: Archive, accept: str) -> None:
        answer = archive.get(f"/studies/{STUDY}", accept=accept)
        assert (answer.status_code, answer.json()["code"]) == (406, "not_acceptable")

    def test_what_is_not_there(self, archive: Archive) -> None:
        one = archive.of(archive.jobs[0], "report.dcm")
        other = archive.of(archive.jobs[1], "report.dcm")
        for path in (
            "/studies/1.2.3",
            f"/studies/{STUDY}/series/1.2.3",
            f"/studies/{STUDY}/series/{other.SeriesInstanceUID}",
            f"/studies/{STUDY}/series/{one.SeriesInstanceUID}/instances/{other.SOPInstanceUID}",
        ):
            for answer in (archive.get(path), archive.get(f"{path}/metadata")):
                assert (answer.status_code, answer.json()["code"]) == (404, "object_not_found")


class TestMetadata:
    def test_is_of_the_same_objects_without_pixels(self, archive: Archive) -> None:
        one = archive.of(archive.jobs[0], "segmentation.dcm")
        where = (STUDY, one.SeriesInstanceUID, one.SOPInstanceUID)
        assert len(archive.client.retrieve_study_metadata(STUDY)) == 2
        (series,) = archive.client.retrieve_series_metadata(*where[:2])
        instance = archive.client.retrieve_instance_metadata(*where)
        for found in (series, instance):
            assert found["00080018"]["Value"] == [one.SOPInstanceUID]
            assert found["0008103E"]["Value"] == [one.SeriesDescription]
            assert "7FE00010" not in found

    def test_what_is_not_on_offer(self, archive: Archive) -> None:
        answer = archive.get(f"/studies/{STUDY}/metadata", accept="application/dicom+xml")
        assert (answer.status_code, answer.json()["code"]) == (406, "not_acceptable")


class TestDeliveries:
    def test_stand_in_the_job(self, archive: Archive) -> None:
        job = archive.service.client.get(f"/jobs/{archive.jobs[0]}").json()
        pending = {"state": "pending", "attempts": 0, "finished": None, "error": None}
        assert job["deliveries"] == [{"destination": name, **pending} for name in ("archive", "second")]
