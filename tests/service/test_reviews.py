"""Reviews over HTTP, the scan for viewers, the calibration's points, and the list that is sent only when it changed."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from typing import Any

import pytest

from jobs.audit import Action
from jobs.blobs import SCAN_FILE
from tests.service.conftest import SCAN, TINY, Service, Site

NIFTI = (348).to_bytes(4, "little") + b"the rest of a header"


def submitted(site: Any, content: bytes) -> str:
    """A finished job of the ward, of a file with this content."""
    answer = site.ask("ward", "POST", "/segment", files={"scan": content}, data={"model": "tiny"})
    job = str(answer.json()["id"])
    site.service.finish(job)
    return job


@pytest.fixture
def job(site: Any) -> str:
    return submitted(site, NIFTI)


class TestReviews:
    def test_a_decision_is_listed_and_stands_with_the_job(self, site: Any, job: str) -> None:
        wish = {"decision": "reject", "comment": " too small ", "reviewer": "AB"}
        answer = site.ask("ward", "POST", f"/jobs/{job}/reviews", json=wish)
        assert answer.status_code == 201
        (listed,) = site.ask("reader", "GET", f"/jobs/{job}/reviews").json()["reviews"]
        assert listed == answer.json()
        assert (listed["decision"], listed["comment"], listed["client"]) == ("reject", "too small", "ward")
        for view in (
            site.ask("reader", "GET", f"/jobs/{job}").json(),
            site.ask("reader", "GET", "/jobs").json()["jobs"][0],
        ):
            assert view["review"] == {"decision": "reject", "at": listed["at"], "client": "ward", "reviewer": "AB"}

    def test_who_may_only_read_or_is_another_client_decides_nothing(self, site: Any, job: str) -> None:
        path, wish = f"/jobs/{job}/reviews", {"decision": "confirm"}
        assert site.ask("reader", "POST", path, json=wish).status_code == 403
        assert site.ask("other", "POST", path, json=wish).status_code == 404
        assert site.ask("other", "GET", path).status_code == 404
        assert site.ask(None, "POST", path, json=wish).status_code == 401
        assert site.ask("ward", "GET", path).json() == {"reviews": []}

    @pytest.mark.parametrize(
        "wish",
        [
            {},
            {"decision": "perhaps"},
            {"decision": "confirm", "comment": "x" * 4001},
            {"decision": "confirm", "comment": "\0"},
        ],
    )
    def test_what_is_no_review_is_refused(self, site: Any, job: str, wish: dict[str, str]) -> None:
        answer = site.ask("ward", "POST", f"/jobs/{job}/reviews", json=wish)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_parameter")

    def test_a_job_without_a_mask_cannot_be_reviewed(self, site: Any) -> None:
        queued = site.submit("ward")
        answer = site.ask("ward", "POST", f"/jobs/{queued}/reviews", json={"decision": "confirm"})
        assert (answer.status_code, answer.json()["code"]) == (409, "job_not_finished")

    def test_is_no_upload_and_taken_where_the_queue_is_full(self, serve: Callable[..., Service], broker: Any) -> None:
        site = Site(serve(redis_url=broker.url, queue_max=1))
        job = submitted(site, NIFTI)
        site.submit("ward")
        assert site.ask("ward", "POST", "/segment", files=SCAN, data=TINY).json()["code"] == "queue_full"
        answer = site.ask("ward", "POST", f"/jobs/{job}/reviews", json={"decision": "confirm"})
        assert answer.status_code == 201


class TestScan:
    @pytest.mark.parametrize(("content", "ending"), [(NIFTI, ".nii"), (gzip.compress(NIFTI), ".nii.gz")])
    def test_a_nifti_file_comes_back_as_it_was_sent(self, site: Any, content: bytes, ending: str) -> None:
        job = submitted(site, content)
        answer = site.ask("reader", "GET", f"/jobs/{job}/scan")
        assert answer.content == content
        assert f'{job}_scan{ending}"' in answer.headers["content-disposition"]
        last = site.service.gateway.audit.list(subject=job)[-1]
        assert (last.client, last.action) == ("ward", Action.READ)

    def test_of_dicom_it_is_what_the_worker_made(self, site: Any) -> None:
        job = str(site.ask("ward", "POST", "/segment", files={"scan": b"DICOM"}, data={"model": "tiny"}).json()["id"])
        site.service.finish(job, SCAN_FILE)
        assert site.ask("reader", "GET", f"/jobs/{job}/scan").content == SCAN_FILE.encode()

    def test_is_gone_where_it_is_no_nifti_and_none_was_made(self, site: Any) -> None:
        job = submitted(site, b"DICOM")
        assert site.ask("reader", "GET", f"/jobs/{job}/scan").json()["code"] == "result_gone"

    def test_is_its_clients_only(self, site: Any, job: str) -> None:
        assert site.ask("other", "GET", f"/jobs/{job}/scan").status_code == 404
        assert site.ask("it", "GET", f"/jobs/{job}/scan").status_code == 200


class TestCalibration:
    def test_has_a_point_for_every_outcome_and_names_no_scan(self, site: Any) -> None:
        answer = site.ask("reader", "GET", "/models/tiny/versions/1.0.0/calibration")
        (structure,) = answer.json()["structures"]
        assert len(structure["predicted"]) == len(structure["dice"]) == len(structure["refused"]) == 60 * 8
        assert (structure["predicted"][0], structure["dice"][0], structure["refused"][0]) == (0.2, 0.1, False)
        assert "scan" not in answer.text
        assert site.ask("reader", "GET", "/models/tiny/versions/9/calibration").json()["code"] == "version_not_found"


class TestList:
    def test_is_sent_again_only_when_something_has_changed(self, site: Any, job: str) -> None:
        first = site.ask("reader", "GET", "/jobs")
        asked = {"If-None-Match": first.headers["etag"]}
        again = site.ask("reader", "GET", "/jobs", headers=asked)
        assert (again.status_code, again.content) == (304, b"")
        site.ask("ward", "POST", f"/jobs/{job}/reviews", json={"decision": "confirm"})
        assert site.ask("reader", "GET", "/jobs", headers=asked).status_code == 200
