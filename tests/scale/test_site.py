"""Machines that share no disk: a scan goes in at one and its result comes out at another, whatever dies between."""

import httpx
import psutil
import pytest

from tests.chaos.client import PATIENCE_S
from tests.chaos.processes import until
from tests.chaos.proxy import Network
from tests.scale.site import Site

REFUSED = "took no job"
LARGE = bytes(64 << 20)


def get(site: Site, path: str, headers: dict[str, str] | None = None, *, gateway: int = 1) -> httpx.Response:
    return httpx.get(f"{site.client.urls[gateway]}{path}", headers=headers, timeout=30.0)


class TestWork:
    def test_a_scan_goes_in_at_one_gateway_and_its_result_comes_out_at_the_other(self, site: Site) -> None:
        answer = site.client.post(gateway=0)
        assert answer is not None
        job = site.client.finished(answer.json()["id"])
        assert job["state"] == "succeeded", job
        masks = [get(site, f"/jobs/{job['id']}/mask", gateway=number).content for number in (0, 1)]
        assert masks[0] == masks[1]
        assert masks[0][:2] == b"\x1f\x8b"

    def test_nothing_of_a_job_stays_on_any_machine(self, site: Site) -> None:
        site.client.segment()
        left = {name: site.files(name) for name in site.fleet.parts if name.startswith(("gateway", "worker"))}
        assert not any(left.values()), left

    def test_a_part_of_a_file_is_had_from_the_bucket(self, site: Site) -> None:
        job_id = site.client.segment()
        whole = get(site, f"/jobs/{job_id}/uncertainty")
        part = get(site, f"/jobs/{job_id}/uncertainty", {"Range": "bytes=5-24", "If-Range": whole.headers["ETag"]})
        assert (part.status_code, part.content) == (206, whole.content[5:25])
        several = get(site, f"/jobs/{job_id}/uncertainty", {"Range": "bytes=0-3,-2"})
        assert several.status_code == 206
        assert whole.content[:4] in several.content
        assert get(site, f"/jobs/{job_id}/uncertainty", {"Range": "bytes=999999999-"}).status_code == 416

    def test_what_is_no_dicom_has_no_dicom_mask(self, site: Site) -> None:
        job_id = site.client.segment()
        answer = get(site, f"/jobs/{job_id}/mask", {"Accept": "application/dicom"})
        assert (answer.status_code, answer.json()["code"]) == (406, "not_acceptable")

    def test_the_model_came_from_the_bucket(self, site: Site) -> None:
        assert get(site, "/models/tiny").json()["aliases"] == {"production": "1.0.0"}
        assert (site.data("gateway-0") / "models" / "tiny" / "1.0.0" / "model.safetensors").is_file()


class TestDeaths:
    def test_a_worker_killed_within_a_job_loses_nothing(self, site: Site) -> None:
        with site.held("write") as (job_id, worker):
            site.fleet.kill(worker)
            job = site.client.finished(job_id)
            site.fleet.revive(worker)
        assert job["state"] == "succeeded"
        assert job["attempt"] >= 2
        assert get(site, f"/jobs/{job_id}/mask").content == site.client.mask(site.client.segment())


class TestStorage:
    def test_a_store_that_is_away_is_a_503_and_no_job(self, site: Site) -> None:
        job_id, before = site.client.segment(), len(site.objects())
        site.s3.network.become(Network.CUT)
        answer = site.client.post()
        read = get(site, f"/jobs/{job_id}/mask")
        erased = site.client.delete(job_id)
        ready, scraped = get(site, "/readyz"), get(site, "/metrics")
        site.s3.network.become(Network.FINE)
        assert answer is not None
        assert [(one.status_code, one.json()["code"]) for one in (answer, read)] == [(503, "storage_unavailable")] * 2
        assert int(answer.headers["Retry-After"]) > 0
        assert erased == 503
        assert "storage" in ready.json()["failures"]
        assert (scraped.status_code, "ncagate_queue_depth" in scraped.text) == (200, True)
        assert len(site.objects()) == before
        assert get(site, f"/jobs/{job_id}/mask").status_code == 200

    def test_a_job_waits_for_a_store_that_went_away_under_it(self, site: Site) -> None:
        with site.held("write") as (job_id, _):
            site.s3.network.become(Network.CUT)
        queued = site.client.job(job_id)["state"]
        until(lambda: "blob store" in site.log("worker-0") + site.log("worker-1"), PATIENCE_S, "a worker notices")
        site.s3.network.become(Network.FINE)
        assert queued in ("queued", "running")
        assert site.client.finished(job_id)["state"] == "succeeded"

    def test_an_outage_uses_up_no_attempt_of_what_is_queued(self, site: Site) -> None:
        names = [f"worker-{number}" for number in (0, 1)]
        for name in names:
            site.fleet.kill(name)
        before = sum(site.log(name).count(REFUSED) for name in names)
        job_id = site.client.submit()
        site.s3.network.become(Network.CUT)
        for name in names:
            site.fleet.revive(name)
        until(
            lambda: sum(site.log(name).count(REFUSED) for name in names) > before, PATIENCE_S, "a worker takes no job"
        )
        waiting = site.client.job(job_id)
        site.s3.network.become(Network.FINE)
        assert (waiting["state"], waiting["attempt"]) == ("queued", 0)
        assert site.client.finished(job_id)["state"] == "succeeded"


class TestLargeFiles:
    """The gateway streams what is in the bucket: here a mask of 64 MB, put there in place of the real one."""

    @pytest.fixture
    def job_id(self, site: Site) -> str:
        job_id = site.client.segment()
        attempt = site.client.job(job_id)["attempt"]
        site.s3.put(site.bucket, f"ncagate/jobs/{job_id}/result-{attempt}/mask.nii.gz", LARGE)
        return job_id

    def test_one_is_never_in_the_gateways_memory(self, site: Site, job_id: str) -> None:
        gateway = psutil.Process(site.fleet.parts["gateway-1"].pid)
        before, most, received = gateway.memory_info().rss, 0, 0
        with httpx.stream("GET", f"{site.client.urls[1]}/jobs/{job_id}/mask", timeout=60.0) as answer:
            for chunk in answer.iter_raw():
                received, most = received + len(chunk), max(most, gateway.memory_info().rss)
        assert received == len(LARGE)
        assert most - before < len(LARGE) // 2

    def test_one_that_breaks_off_does_not_look_whole(self, site: Site, job_id: str) -> None:
        with httpx.stream("GET", f"{site.client.urls[1]}/jobs/{job_id}/mask", timeout=60.0) as answer:
            chunks = answer.iter_raw()
            next(chunks)
            site.s3.network.become(Network.CUT)
            with pytest.raises(httpx.TransportError):
                list(chunks)
        site.s3.network.become(Network.FINE)
        part = get(site, f"/jobs/{job_id}/mask", {"Range": "bytes=-7"})
        assert (part.status_code, len(part.content)) == (206, 7)


class TestErasure:
    def test_leaves_no_object(self, site: Site) -> None:
        job_id = site.client.segment()
        assert any(job_id in key for key in site.objects())
        assert site.client.delete(job_id) == 204
        assert not [key for key in site.objects() if job_id in key]
        assert get(site, f"/jobs/{job_id}/mask").status_code == 404
