"""What the processes say of a job: lines of JSON and one trace, over all of them, and nothing of the patient."""

import json
from typing import Any
from uuid import uuid4

import httpx
import pytest

from ncagate.logs import chosen_request_id
from tests.chaos.client import PATIENCE_S
from tests.chaos.processes import until
from tests.scale.site import Site

TRACE = "0af7651916cd43dd8448eb211c80319c"
CANARY = "Zyxwina^Quorra"


def send(site: Site, **headers: str) -> tuple[str, httpx.Response]:
    """Have a scan segmented, its end told by webhook; the job and the answer."""
    form = {"model": "tiny", "members": "2", "webhook": f"{site.receiver.url}/hook"}
    files = {"scan": (f"{CANARY}.nii.gz", site.client.scan)}
    answer = httpx.post(f"{site.client.urls[0]}/segment", files=files, data=form, headers=headers, timeout=30.0)
    assert answer.status_code == 202, answer.text
    job_id = str(answer.json()["id"])
    assert site.client.finished(job_id)["state"] == "succeeded"
    return job_id, answer


def lines(site: Site) -> list[dict[str, Any]]:
    """Every line of every process of ours; all of them are JSON."""
    names = [name for name in site.fleet.parts if name.startswith(("gateway", "worker", "deliver"))]
    return [json.loads(line) for name in names for line in site.log(name).splitlines()]


def of_job(site: Site, job_id: str) -> list[dict[str, Any]]:
    return [one for one in lines(site) if job_id in one["event"]]


class TestLines:
    def test_each_change_of_a_job_is_one_line_with_the_ids_of_request_job_and_model(self, site: Site) -> None:
        request_id = str(uuid4())
        job_id, answer = send(site, **{"X-Request-ID": request_id})
        assert answer.headers["X-Request-ID"] == request_id
        until(lambda: len(of_job(site, job_id)) >= 4, PATIENCE_S, "the delivery is told")
        told = of_job(site, job_id)
        assert [one["state"] for one in sorted(told, key=lambda one: str(one["timestamp"])) if "state" in one] == [
            "queued", "running", "succeeded", "delivered",
        ]  # fmt: skip
        assert {one["request_id"] for one in told} == {request_id}
        assert {one["process"] for one in told} == {"gateway", "worker", "deliverer"}
        for one in told[1:]:
            assert (one["job_id"], one["model"], one["version"], one["attempt"]) == (job_id, "tiny", "1.0.0", 1)

    def test_a_failure_has_its_code(self, site: Site) -> None:
        files = {"scan": b"this is no scan"}
        job_id = httpx.post(f"{site.client.urls[0]}/segment", files=files, data={"model": "tiny"}).json()["id"]
        site.client.finished(job_id)
        until(lambda: any(one.get("state") == "failed" for one in of_job(site, job_id)), PATIENCE_S, "it is told")
        (told,) = [one for one in of_job(site, job_id) if one.get("state") == "failed"]
        assert told["code"] == "unknown_format"

    def test_neither_a_name_of_a_file_nor_one_in_a_header_is_in_any_line_or_trace(self, site: Site) -> None:
        job_id, answer = send(site, **{"X-Request-ID": CANARY, "traceparent": CANARY, "tracestate": f"a={CANARY}"})
        assert len(answer.headers["X-Request-ID"]) == 32
        until(lambda: len(site.receiver.of(job_id)) > 5, PATIENCE_S, "its trace has come")
        assert not [one for one in lines(site) if "zyxwina" in str(one).lower()]
        assert not [one for one in site.receiver.raw if b"zyxwina" in one.lower()]

    @pytest.mark.parametrize("offered", [None, "", CANARY, "1" * 31, f"{uuid4()}x", f"{uuid4()}\n", "%s" * 16])
    def test_what_is_no_uuid_is_no_identifier_of_a_request(self, offered: str | None) -> None:
        assert chosen_request_id(offered) != offered

    def test_a_uuid_is_one(self) -> None:
        for offered in (str(uuid4()), uuid4().hex):
            assert chosen_request_id(offered) == offered


class TestTrace:
    def test_one_trace_goes_from_the_request_to_the_delivery(self, site: Site) -> None:
        job_id, _ = send(site, traceparent=f"00-{TRACE}-b7ad6b7169203331-01")
        wanted = {
            ("ncagate-gateway", "POST /segment"),
            ("ncagate-worker", "queue"),
            ("ncagate-worker", "job"),
            *(("ncagate-worker", stage) for stage in ("read", "prepare", "segment", "judge", "write")),
            ("ncagate-deliverer", "deliver"),
        }

        def parts() -> set[tuple[str, str]]:
            return {(one.service, one.name) for one in site.receiver.of(job_id)}

        until(lambda: wanted <= parts(), PATIENCE_S, f"all parts of the trace: {wanted}")
        assert {one.trace for one in site.receiver.of(job_id)} == {TRACE}
        assert any(one.get("trace_id") == TRACE for one in of_job(site, job_id))

    def test_a_job_of_which_no_client_tells_a_trace_has_one_of_its_own(self, site: Site) -> None:
        job_id, _ = send(site)
        until(lambda: len({one.service for one in site.receiver.of(job_id)}) == 3, PATIENCE_S, "its trace has come")
        (trace,) = {one.trace for one in site.receiver.of(job_id)}
        assert trace != TRACE


class TestCollector:
    def test_one_that_is_away_costs_no_job(self, site: Site) -> None:
        site.receiver.refuse = True
        try:
            job_id, _ = send(site)
        finally:
            site.receiver.refuse = False
        assert site.client.mask(job_id)
