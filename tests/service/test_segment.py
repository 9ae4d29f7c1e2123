from __future__ import annotations

import base64
import json
from typing import Any

import pytest

FIELDS = {"model": "tiny"}


def stored(service: Any, job_id: str) -> list[bytes]:
    return [path.read_bytes() for path in service.gateway.blobs.input_files(job_id)]


def woken(broker: Any) -> bool:
    """Whether there is a message for a worker within ten seconds."""
    with broker.client() as client:
        return client.brpop(["segment"], timeout=10) is not None


class TestAccepted:
    def test_answers_202_with_location_and_the_job(self, service: Any) -> None:
        answer = service.client.post("/segment", files={"scan": b"scan"}, data=FIELDS)
        job = answer.json()
        assert answer.status_code == 202
        assert answer.headers["Location"] == job["links"]["self"] == f"/jobs/{job['id']}"
        assert int(answer.headers["Retry-After"]) >= 1
        assert (job["state"], job["position"], job["error"]) == ("queued", 0, None)

    def test_the_defaults_are_the_versions_and_the_settings(self, service: Any) -> None:
        job = service.client.post("/segment", files={"scan": b"scan"}, data=FIELDS).json()
        assert (job["version"], job["members"], job["seed"]) == ("1.0.0", 10, 0)
        assert (job["min_dice"], job["alpha"], job["rule"]) == (0.8, 0.05, "conformal")

    def test_what_nobody_chose_is_the_versions(
        self, serve: Any, broker: Any, publish_tiny: Any, make_manifest: Any
    ) -> None:
        service = serve(redis_url=broker.url)
        calibration = make_manifest().calibration.model_copy(update={"min_dice": 0.6, "alpha": 0.15})
        publish_tiny(service.gateway.settings.models, version="9.0.0", calibration=calibration)
        job = service.client.post("/segment", files={"scan": b"scan"}, data={**FIELDS, "version": "9.0.0"}).json()
        assert (job["version"], job["min_dice"], job["alpha"]) == ("9.0.0", 0.6, 0.15)

    def test_the_deployments_settings_come_before_the_defaults(self, serve: Any, broker: Any) -> None:
        service = serve(redis_url=broker.url, min_dice=0.7, alpha=0.2, rule="nqm")
        job = service.client.post("/segment", files={"scan": b"scan"}, data=FIELDS).json()
        assert (job["min_dice"], job["alpha"], job["rule"]) == (0.7, 0.2, "nqm")

    def test_what_the_client_chose_is_kept(self, service: Any) -> None:
        verdict = {"min_dice": "0.9", "alpha": "0.01", "rule": "nqm"}
        chosen = {**FIELDS, **verdict, "version": "1.0.0", "members": "4", "seed": "7", "series_uid": "1.2.3"}
        job = service.client.post("/segment", files={"scan": b"scan"}, data=chosen).json()
        assert (job["version"], job["members"], job["seed"]) == ("1.0.0", 4, 7)
        assert (job["min_dice"], job["alpha"], job["rule"]) == (0.9, 0.01, "nqm")
        request = service.gateway.repository.get(job["id"]).request
        assert (request.min_dice, request.alpha, request.rule) == (0.9, 0.01, "nqm")
        assert request.series_uid == job["series_uid"] == "1.2.3"

    def test_a_region_of_interest_is_kept_as_it_is_always_written(self, service: Any) -> None:
        chosen = {**FIELDS, "roi": "centre:-18.0,-25,-20:18,+25,20.50"}
        job = service.client.post("/segment", files={"scan": b"scan"}, data=chosen).json()
        assert job["roi"] == "centre:-18,-25,-20:18,25,20.5"
        assert service.gateway.repository.get(job["id"]).request.roi == job["roi"]
        assert service.client.post("/segment", files={"scan": b"scan"}, data=FIELDS).json()["roi"] is None

    def test_an_alias_is_pinned_to_its_version(self, service: Any) -> None:
        job = service.client.post("/segment", files={"scan": b"x"}, data={**FIELDS, "version": "production"}).json()
        assert job["version"] == "1.0.0"

    def test_several_files_are_kept_in_order(self, service: Any) -> None:
        files = [("scan", ("b.dcm", b"first")), ("scan", ("a.dcm", b"second"))]
        job = service.client.post("/segment", files=files, data=FIELDS).json()
        assert stored(service, job["id"]) == [b"first", b"second"]

    def test_a_body_in_tiny_chunks_is_the_same(self, service: Any) -> None:
        scan = bytes(range(256)) * 20 + b"\r\n--not-the-boundary\r\n"
        body = (
            b'--b\r\nContent-Disposition: form-data; name="scan"; filename="x"\r\n\r\n' + scan
            + b'\r\n--b\r\nContent-Disposition: form-data; name="model"\r\n\r\ntiny\r\n--b--\r\n'
        )  # fmt: skip
        answer = service.client.post(
            "/segment",
            content=(body[place : place + 7] for place in range(0, len(body), 7)),
            headers={"Content-Type": "multipart/form-data; boundary=b"},
        )
        assert answer.status_code == 202
        assert stored(service, answer.json()["id"]) == [scan]

    def test_the_clients_file_name_is_kept_nowhere(self, service: Any, capfd: pytest.CaptureFixture[str]) -> None:
        service.client.post("/segment", files={"scan": ("Jane_Doe_1970.nii", b"scan")}, data=FIELDS)
        data = service.gateway.settings.data
        assert not any(b"Jane_Doe" in path.read_bytes() for path in data.rglob("*") if path.is_file())
        assert not any("Jane_Doe" in str(path) for path in data.rglob("*"))
        assert "Jane_Doe" not in "".join(capfd.readouterr())

    def test_the_broker_hears_of_no_job_and_no_patient(self, service: Any, broker: Any) -> None:
        service.submit()
        with broker.client() as client:
            message, *_ = client.lrange("segment", 0, -1)
        envelope = json.loads(message)
        arguments, keywords, _ = json.loads(base64.b64decode(envelope["body"]))
        assert envelope["headers"]["task"] == "ncagate.segment"
        assert (arguments, keywords, envelope["content-type"]) == ([], {}, "application/json")


class TestWaking:
    def test_without_a_broker_the_job_is_accepted_and_a_worker_woken_later(self, serve: Any, own_redis: Any) -> None:
        service = serve(redis_url=own_redis.url)
        service.submit()
        own_redis.start()
        assert woken(own_redis)

    def test_a_broker_that_loses_its_memory_is_told_again(self, serve: Any, broker: Any) -> None:
        service = serve(redis_url=broker.url)
        service.submit()
        with broker.client() as client:
            client.flushall()
        assert woken(broker)

    def test_a_queue_that_stays_long_does_not_fill_the_broker(self, serve: Any, broker: Any) -> None:
        service = serve(redis_url=broker.url, reconcile_s=0.02)
        for _ in range(3):
            service.submit()
        for _ in range(20):
            service.gateway.reconcile()
        with broker.client() as client:
            assert 3 <= client.llen("segment") <= 6  # two reconcilers at once may each add what is missing
