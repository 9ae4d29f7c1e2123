from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from service.schemas import JobView


def events(answer: httpx.Response) -> Iterator[tuple[str, dict[str, Any]]]:
    name = ""
    for line in answer.iter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


class TestShow:
    def test_a_queued_job_has_its_place(self, service: Any) -> None:
        service.submit()
        job = service.client.get(f"/jobs/{service.submit()}").json()
        assert (job["state"], job["position"]) == ("queued", 1)

    def test_a_running_job_has_its_progress(self, service: Any) -> None:
        job_id = service.submit()
        service.claim(job_id)
        service.gateway.repository.heartbeat(job_id, 1, progress=0.5, stage="segment", lease_s=60.0)
        job = service.client.get(f"/jobs/{job_id}").json()
        assert (job["state"], job["progress"], job["stage"], job["attempt"]) == ("running", 0.5, "segment", 1)

    def test_a_succeeded_job_has_its_verdict_and_figures(self, service: Any) -> None:
        job_id = service.submit()
        service.finish(job_id)
        job = service.client.get(f"/jobs/{job_id}").json()
        assert (job["verdict"], job["nqm"], job["volume_ml"]) == ("flag", 0.3, 3.25)
        assert (job["predicted_dice"], job["dice_interval"], job["required_dice"]) == (0.66, [0.41, 0.83], 0.8)
        assert (job["rule"], job["alpha"]) == ("conformal", 0.05)
        assert job["stage_seconds"]["segment"] == 1.2

    @pytest.mark.parametrize("end", ["finish", "fail", "claim", None])
    def test_is_as_documented_in_every_state(self, service: Any, end: str | None) -> None:
        job_id = service.submit()
        if end:
            getattr(service, end)(job_id)
        body = service.client.get(f"/jobs/{job_id}").json()
        assert JobView.model_validate(body, extra="forbid").id == job_id

    def test_a_failed_job_says_why(self, service: Any) -> None:
        job_id = service.submit()
        service.fail(job_id)
        job = service.client.get(f"/jobs/{job_id}").json()
        assert job["error"] == {"code": "gzip_truncated", "detail": "the gzip stream ends early"}

    @pytest.mark.parametrize("suffix", ["", "/mask", "/report", "/uncertainty", "/preview", "/events"])
    def test_an_unknown_job_is_a_404(self, service: Any, suffix: str) -> None:
        answer = service.client.get(f"/jobs/{'f' * 32}{suffix}")
        assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found")


class TestList:
    def test_pages_follow_their_links(self, service: Any) -> None:
        ids = [service.submit() for _ in range(5)]
        seen, page = [], "/jobs?limit=2&state=queued"
        while page:
            body = service.client.get(page).json()
            seen += [job["id"] for job in body["jobs"]]
            page = body["next"]
        assert seen == ids[::-1]


class TestArtefacts:
    @pytest.mark.parametrize(
        ("name", "file", "media"),
        [
            ("mask", "mask.nii.gz", "application/gzip"),
            ("uncertainty", "uncertainty.nii.gz", "application/gzip"),
            ("preview", "preview.png", "image/png"),
        ],
    )
    def test_come_with_name_type_and_verdict(self, service: Any, name: str, file: str, media: str) -> None:
        job_id = service.submit()
        service.finish(job_id)
        answer = service.client.get(f"/jobs/{job_id}/{name}")
        assert answer.content == file.encode()
        assert answer.headers["Content-Type"] == media
        assert f'filename="{job_id}_{file}"' in answer.headers["Content-Disposition"]
        assert answer.headers["NCAgate-Verdict"] == "flag"
        assert answer.headers["NCAgate-NQM"] == "0.3"
        assert answer.headers["NCAgate-Reasons"] == "nqm_above_threshold"

    @pytest.mark.parametrize(
        ("accept", "media"),
        [
            ("application/dicom", "application/dicom"),
            ("application/dicom;q=0.5, application/gzip", "application/gzip"),
            ("*/*", "application/gzip"),
        ],
    )
    def test_the_mask_is_a_dicom_seg_where_that_is_liked_best(self, service: Any, accept: str, media: str) -> None:
        job_id = service.submit()
        service.finish(job_id, "segmentation.dcm")
        answer = service.client.get(f"/jobs/{job_id}/mask", headers={"Accept": accept})
        assert (answer.status_code, answer.headers["Content-Type"], answer.headers["Vary"]) == (200, media, "Accept")
        assert answer.headers["NCAgate-Verdict"] == "flag"

    def test_the_report_is_json_or_a_structured_report(self, service: Any) -> None:
        job_id = service.submit()
        service.finish(job_id, "report.dcm")
        answer = service.client.get(f"/jobs/{job_id}/report")
        assert answer.json() == service.client.get(f"/jobs/{job_id}").json()
        assert answer.headers["NCAgate-Verdict"] == answer.json()["verdict"] == "flag"
        answer = service.client.get(f"/jobs/{job_id}/report", headers={"Accept": "application/dicom"})
        assert (answer.content, answer.headers["Content-Type"]) == (b"report.dcm", "application/dicom")
        assert answer.headers["NCAgate-Verdict"] == "flag"

    @pytest.mark.parametrize("accept", ["application/json", "application/dicom"])
    def test_there_is_no_report_before_there_is_a_result(self, service: Any, accept: str) -> None:
        answer = service.client.get(f"/jobs/{service.submit()}/report", headers={"Accept": accept})
        assert (answer.status_code, answer.json()["code"]) == (409, "job_not_finished")

    @pytest.mark.parametrize("name", ["mask", "report"])
    def test_there_is_no_dicom_of_what_was_no_dicom(self, service: Any, name: str) -> None:
        job_id = service.submit()
        service.finish(job_id)
        answer = service.client.get(f"/jobs/{job_id}/{name}", headers={"Accept": "application/dicom"})
        assert (answer.status_code, answer.json()["code"]) == (406, "not_acceptable")
        assert "DICOM" in answer.json()["detail"]

    def test_of_an_unfinished_job_are_a_409_with_retry_after(self, service: Any) -> None:
        answer = service.client.get(f"/jobs/{service.submit()}/mask")
        assert (answer.status_code, answer.json()["code"]) == (409, "job_not_finished")
        assert int(answer.headers["Retry-After"]) >= 1

    def test_of_a_failed_job_are_a_409_with_its_own_code(self, service: Any) -> None:
        job_id = service.submit()
        service.fail(job_id)
        answer = service.client.get(f"/jobs/{job_id}/mask")
        assert (answer.status_code, answer.json()["code"]) == (409, "gzip_truncated")

    def test_of_a_cancelled_job_are_a_409(self, service: Any) -> None:
        job_id = service.submit()
        service.client.delete(f"/jobs/{job_id}")
        answer = service.client.get(f"/jobs/{job_id}/mask")
        assert (answer.status_code, answer.json()["code"]) == (409, "job_cancelled")

    def test_that_vanished_from_the_disk_are_a_410(self, service: Any) -> None:
        job_id = service.submit()
        service.finish(job_id)
        (service.gateway.blobs.result_dir(job_id, 1) / "mask.nii.gz").unlink()
        answer = service.client.get(f"/jobs/{job_id}/mask")
        assert (answer.status_code, answer.json()["code"]) == (410, "result_gone")


class TestDelete:
    def test_cancels_a_queued_job_at_once(self, service: Any) -> None:
        answer = service.client.delete(f"/jobs/{service.submit()}")
        assert (answer.status_code, answer.json()["state"]) == (202, "cancelled")

    def test_asks_a_running_job_to_stop(self, service: Any) -> None:
        job_id = service.submit()
        service.claim(job_id)
        answer = service.client.delete(f"/jobs/{job_id}")
        assert (answer.status_code, answer.json()["state"]) == (202, "running")
        assert not service.gateway.repository.heartbeat(job_id, 1, progress=0.1, stage="segment", lease_s=60.0)

    def test_erases_a_finished_job_with_its_files(self, service: Any) -> None:
        job_id = service.submit()
        service.finish(job_id)
        assert service.client.delete(f"/jobs/{job_id}").status_code == 204
        assert list((service.blobs / "jobs").iterdir()) == []
        assert service.client.get(f"/jobs/{job_id}").status_code == 404
        assert service.client.delete(f"/jobs/{job_id}").status_code == 404


class TestEvents:
    def test_follow_the_job_to_its_end(self, service: Any) -> None:
        job_id = service.submit()
        with service.client.stream("GET", f"/jobs/{job_id}/events") as answer:
            assert answer.headers["Content-Type"].startswith("text/event-stream")
            stream = events(answer)
            assert next(stream)[1]["state"] == "queued"
            service.claim(job_id)
            assert next(stream)[1]["state"] == "running"
            service.gateway.repository.heartbeat(job_id, 1, progress=0.5, stage="segment", lease_s=60.0)
            assert next(stream)[1]["progress"] == 0.5
            service.gateway.repository.succeed(job_id, 1, {"verdict": "accept"})
            name, job = next(stream)
            assert (name, job["state"], job["verdict"]) == ("end", "succeeded", "accept")
            assert next(stream, None) is None

    def test_of_a_finished_job_end_at_once(self, service: Any) -> None:
        job_id = service.submit()
        service.fail(job_id)
        with service.client.stream("GET", f"/jobs/{job_id}/events") as answer:
            assert [name for name, _ in events(answer)] == ["end"]

    def test_say_when_the_job_is_erased(self, service: Any) -> None:
        job_id = service.submit()
        with service.client.stream("GET", f"/jobs/{job_id}/events") as answer:
            stream = events(answer)
            next(stream)
            with service.gateway.repository._writer.begin() as connection:
                connection.exec_driver_sql("DELETE FROM jobs")
            assert next(stream) == ("erased", {"id": job_id})


class TestWaiting:
    @pytest.fixture
    def worker(self, service: Any) -> Iterator[list[str]]:
        """Ends the next job in the way that is put into this list."""
        ends: list[str] = ["finish"]

        def work() -> None:
            deadline = time.monotonic() + 5.0
            while time.monotonic() < deadline:
                for job in service.gateway.repository.list():
                    return getattr(service, ends[0])(job.id)  # type: ignore[no-any-return]
                time.sleep(0.02)

        thread = threading.Thread(target=work)
        thread.start()
        yield ends
        thread.join()

    def post(self, service: Any, **headers: str) -> httpx.Response:
        answer: httpx.Response = service.client.post(
            "/segment", files={"scan": b"scan"}, data={"model": "tiny"}, headers=headers
        )
        return answer

    def test_prefer_wait_answers_with_the_finished_job(self, service: Any, worker: list[str]) -> None:
        answer = self.post(service, Prefer="wait=5")
        assert (answer.status_code, answer.json()["verdict"]) == (200, "flag")
        assert answer.headers["Preference-Applied"] == "wait=5"

    def test_a_failed_job_is_shown_as_such(self, service: Any, worker: list[str]) -> None:
        worker[0] = "fail"
        answer = self.post(service, Prefer="wait=5")
        assert (answer.status_code, answer.json()["state"]) == (200, "failed")

    def test_too_short_a_wait_answers_202(self, service: Any) -> None:
        answer = self.post(service, Prefer="wait=1")
        assert (answer.status_code, answer.json()["state"]) == (202, "queued")
        assert "Location" in answer.headers

    def test_the_wait_is_bounded_by_the_settings(self, serve: Any, broker: Any) -> None:
        service = serve(redis_url=broker.url, wait_max_s=0.2)
        answer = self.post(service, Prefer="wait=1000")
        assert (answer.status_code, answer.headers["Preference-Applied"]) == (202, "wait=0")

    @pytest.mark.parametrize(
        ("accept", "body"),
        [
            ("application/gzip", b"mask.nii.gz"),
            ("application/x-gzip", b"mask.nii.gz"),
            ("image/png", b"preview.png"),
            ("image/*, application/json;q=0.1", b"preview.png"),
        ],
    )
    def test_accept_brings_the_file_itself(self, service: Any, worker: list[str], accept: str, body: bytes) -> None:
        answer = self.post(service, Accept=accept)
        assert (answer.status_code, answer.content) == (200, body)
        assert answer.headers["NCAgate-Verdict"] == "flag"
        assert answer.headers["Location"] == f"/jobs/{answer.headers['NCAgate-Job']}"
        assert answer.headers["Content-Type"] in (accept, "image/png")

    def test_a_failure_instead_of_the_file_is_a_problem(self, service: Any, worker: list[str]) -> None:
        worker[0] = "fail"
        answer = self.post(service, Accept="application/gzip")
        assert (answer.status_code, answer.json()["code"]) == (422, "gzip_truncated")
        assert answer.headers["Content-Type"] == "application/problem+json"

    def test_a_file_that_takes_too_long_is_a_202(self, service: Any) -> None:
        answer = self.post(service, Accept="image/png", Prefer="wait=0")
        assert (answer.status_code, answer.json()["state"]) == (202, "queued")

    def test_respond_async_does_not_wait(self, service: Any) -> None:
        answer = self.post(service, Accept="image/png", Prefer="respond-async")
        assert (answer.status_code, answer.headers["Preference-Applied"]) == (202, "respond-async")
