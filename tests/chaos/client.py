"""A client of the service that does not give up: it comes again while a gateway is away, and keeps what it was told."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import suppress
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.chaos.processes import until

PATIENCE_S = 60.0
"""A stack that is whole again has ended every job by then, though none takes a second: one that has not is stuck."""
ANSWER_S = 15.0
CANCEL_S = 2.0
REFUSALS = frozenset({503, 507})
"""How a gateway says that something is away, or full."""
FINAL = frozenset({"succeeded", "failed", "cancelled"})


class Client:
    """Speaks with any of some gateways, and remembers which jobs they accepted, and which it did not want then."""

    def __init__(self, ports: list[int], scan: bytes) -> None:
        self.urls = [f"http://127.0.0.1:{port}" for port in ports]
        self.scan = scan
        self.accepted: list[str] = []
        self.cancelled: set[str] = set()

    def alive(self, gateway: int = 0) -> bool:
        """Whether that gateway answers."""
        try:
            return httpx.get(f"{self.urls[gateway]}/livez", timeout=ANSWER_S).status_code == 200
        except httpx.TransportError:
            return False

    def post(self, seed: int = 0, *, gateway: int = 0, **fields: str) -> httpx.Response | None:
        """POST a scan once; the answer, None where the connection broke."""
        form = {"model": "tiny", "members": "2", "seed": str(seed), **fields}
        try:
            answer = httpx.post(f"{self.urls[gateway]}/segment", files={"scan": self.scan}, data=form, timeout=ANSWER_S)
        except httpx.TransportError:
            return None
        if answer.status_code == 202:
            self.accepted.append(str(answer.json()["id"]))
        return answer

    def try_submit(self, seed: int = 0, *, gateway: int = 0, **fields: str) -> str | None:
        """POST a scan once; its job, None where the gateway is away or says that something is."""
        answer = self.post(seed, gateway=gateway, **fields)
        if answer is None or answer.status_code in REFUSALS:
            return None
        assert answer.status_code == 202, f"{answer.status_code}: {answer.text}"
        return str(answer.json()["id"])

    def submit(self, seed: int = 0, **fields: str) -> str:
        """POST a scan as often as it takes; its job."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            for gateway in range(len(self.urls)):
                if job_id := self.try_submit(seed, gateway=gateway, **fields):
                    return job_id
            time.sleep(0.05)
        raise TimeoutError("no gateway takes a scan")

    def job(self, job_id: str) -> dict[str, Any]:
        """The job as it stands."""
        job: dict[str, Any] = self._get(f"/jobs/{job_id}").json()
        return job

    def finished(self, job_id: str) -> dict[str, Any]:
        """The job once it has ended."""
        until(lambda: self.job(job_id)["state"] in FINAL, PATIENCE_S, f"job {job_id} ends")
        return self.job(job_id)

    def segment(self, seed: int = 0, **fields: str) -> str:
        """Have a scan segmented; the job, which has succeeded."""
        job_id = self.submit(seed, **fields)
        job = self.finished(job_id)
        assert job["state"] == "succeeded", job
        return job_id

    def mask(self, job_id: str) -> bytes:
        """The job's mask."""
        return self._get(f"/jobs/{job_id}/mask").content

    def delete(self, job_id: str) -> int:
        """Cancel or erase the job; the status, 0 where nobody answered."""
        try:
            return httpx.delete(f"{self.urls[0]}/jobs/{job_id}", timeout=ANSWER_S).status_code
        except httpx.TransportError:
            return 0

    def cancel(self, job_id: str) -> None:
        """Ask for an end of the job, of whichever gateway answers soon, if one does."""
        self.cancelled.add(job_id)
        for url in self.urls:
            with suppress(httpx.TransportError):
                httpx.delete(f"{url}/jobs/{job_id}", timeout=CANCEL_S)
                return

    def erase(self, job_id: str) -> None:
        """Erase a job that has ended, and do not miss it."""
        assert self.delete(job_id) == 204
        self.accepted.remove(job_id)

    def totals(self, gateway: int = 0) -> dict[str, int]:
        """How many jobs have ever reached each final state, by the gateway's metrics."""
        page = httpx.get(f"{self.urls[gateway]}/metrics", timeout=ANSWER_S).raise_for_status().text
        families = {one.name: one for one in text_string_to_metric_families(page)}
        totals: Counter[str] = Counter()
        for one in families["ncagate_jobs"].samples:
            totals[one.labels["outcome"]] += int(one.value)
        return totals

    def _get(self, path: str) -> httpx.Response:
        return httpx.get(f"{self.urls[0]}{path}", timeout=ANSWER_S).raise_for_status()
