"""`Idempotency-Key`: sending a request again is not a second job."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import httpx
import pytest

from jobs.repository import JobRepository

KEY = "monday's first scan"


def send(site: Any, who: str = "ward", *, key: str = KEY, scan: bytes = b"scan", **fields: str) -> httpx.Response:
    answer: httpx.Response = site.ask(
        who,
        "POST",
        "/segment",
        files={"scan": scan},
        data={"model": "tiny", **fields},
        headers={"Idempotency-Key": key},
    )
    return answer


def jobs(site: Any) -> list[str]:
    return [one["id"] for one in site.ask("it", "GET", "/jobs").json()["jobs"]]


class TestReplay:
    def test_answers_with_the_job_of_the_first_time(self, site: Any) -> None:
        first, again = send(site), send(site)
        assert (first.status_code, again.status_code) == (202, 202)
        assert first.json()["id"] == again.json()["id"] == again.headers["Location"].removeprefix("/jobs/")
        assert len(jobs(site)) == 1
        assert site.service.until_clean()

    def test_answers_with_the_result_once_there_is_one(self, site: Any) -> None:
        job = send(site).json()["id"]
        site.service.finish(job)
        again = send(site)
        assert (again.status_code, again.json()["state"]) == (200, "succeeded")
        assert len(jobs(site)) == 1

    def test_outlives_another_version_in_production(self, site: Any) -> None:
        job = send(site).json()
        site.ask("it", "PUT", "/models/tiny/aliases/production", json={"version": "1.1.0"})
        assert send(site).json()["id"] == job["id"]
        assert send(site, key="another").json()["version"] == "1.1.0"

    def test_outlives_a_restart(self, serving: Any, broker: Any, tmp_path: Any) -> None:
        ids = []
        for _ in range(2):
            with serving(tmp_path, redis_url=broker.url) as service:
                answer = service.client.post(
                    "/segment", files={"scan": b"x"}, data={"model": "tiny"}, headers={"Idempotency-Key": KEY}
                )
                ids.append(answer.json()["id"])
        assert ids[0] == ids[1]

    def test_without_one_every_request_is_a_job(self, site: Any) -> None:
        assert len({site.submit("ward") for _ in range(3)}) == 3


class TestReuse:
    @pytest.mark.parametrize("change", [{"scan": b"another"}, {"seed": "1"}, {"members": "3"}, {"version": "1.0.0"}])
    def test_for_another_request_is_refused(self, site: Any, change: Any) -> None:
        job = send(site).json()["id"]
        answer = send(site, **change)
        assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")
        assert answer.json()["job"] == job
        assert len(jobs(site)) == 1
        assert site.service.until_clean()

    def test_by_another_client_is_none(self, site: Any) -> None:
        mine, other = send(site), send(site, "other", scan=b"another")
        assert (mine.status_code, other.status_code) == (202, 202)
        assert mine.json()["id"] != other.json()["id"]

    def test_after_its_job_was_erased_is_none(self, site: Any) -> None:
        job = send(site).json()["id"]
        assert site.ask("ward", "DELETE", f"/jobs/{job}").status_code == 202
        assert send(site).json()["id"] == job
        assert site.ask("ward", "DELETE", f"/jobs/{job}").status_code == 204
        again = send(site, scan=b"another")
        assert again.status_code == 202
        assert again.json()["id"] != job

    def test_of_what_was_refused_is_none(self, site: Any) -> None:
        assert send(site, seed="-1").status_code == 422
        assert send(site).status_code == 202


class TestAtOnce:
    def test_several_make_one_job(self, site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        gate = Barrier(4, timeout=20)
        commit = JobRepository.create

        def together(*arguments: Any, **options: Any) -> Any:
            gate.wait()  # all of them have looked, and found no job
            return commit(*arguments, **options)

        monkeypatch.setattr(JobRepository, "create", together)
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda _: send(site), range(4)))
        assert {one.status_code for one in answers} == {202}
        assert {one.json()["id"] for one in answers} == set(jobs(site))
        assert len(jobs(site)) == 1
        assert site.service.until_clean()

    def test_of_different_requests_one_is_refused(self, site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        gate = Barrier(2, timeout=20)
        commit = JobRepository.create

        def together(*arguments: Any, **options: Any) -> Any:
            gate.wait()
            return commit(*arguments, **options)

        monkeypatch.setattr(JobRepository, "create", together)
        with ThreadPoolExecutor(2) as pool:
            answers = list(pool.map(lambda scan: send(site, scan=scan), (b"one", b"two")))
        assert sorted(one.status_code for one in answers) == [202, 422]
        assert site.service.until_clean()


class TestBadKeys:
    @pytest.mark.parametrize("key", [b"", b"x" * 256, b"caf\xe9", b"a\tb", b"\xff"])
    def test_are_refused(self, site: Any, key: bytes) -> None:
        headers = [(b"Idempotency-Key", key), (b"Authorization", f"Bearer {site.texts['ward']}".encode())]
        answer = site.service.client.post("/segment", files={"scan": b"x"}, data={"model": "tiny"}, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_parameter")
        assert jobs(site) == []

    def test_two_of_them_are_refused(self, site: Any) -> None:
        headers = [
            ("Idempotency-Key", "a"),
            ("Idempotency-Key", "b"),
            ("Authorization", f"Bearer {site.texts['ward']}"),
        ]
        answer = site.service.client.post("/segment", files={"scan": b"x"}, data={"model": "tiny"}, headers=headers)
        assert answer.status_code == 422

    @pytest.mark.parametrize("key", ["x" * 255, "'; DROP TABLE jobs; --", "../../etc", "%00", '"quoted"', "a ~"])
    def test_what_is_printable_is_none(self, site: Any, key: str) -> None:
        first = send(site, key=key)
        assert first.status_code == 202
        assert send(site, key=key).json()["id"] == first.json()["id"]
