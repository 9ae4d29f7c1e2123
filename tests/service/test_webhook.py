"""The field `webhook` of POST /segment, and what the job says of it."""

from pathlib import Path
from typing import Any

import pytest

URL = "https://ris.example.org/hook?key=1"


@pytest.fixture
def service(serve: Any, broker: Any, tmp_path: Path) -> Any:
    """A gateway that sends webhooks to one host. It does not read the secret."""
    return serve(redis_url=broker.url, webhook_hosts="ris.example.org", webhook_secret_file=tmp_path / "nothing")


def refusal(service: Any, url: str) -> tuple[int, str]:
    answer = service.client.post("/segment", files={"scan": b"scan"}, data={"model": "tiny", "webhook": url})
    assert service.until_clean()
    return answer.status_code, answer.json()["code"]


class TestField:
    def test_is_kept_and_shown(self, service: Any) -> None:
        job_id = service.submit(webhook=URL)
        job = service.client.get(f"/jobs/{job_id}").json()
        assert (job["webhook"], job["deliveries"]) == (URL, [])
        assert service.client.get(f"/jobs/{service.submit()}").json()["webhook"] is None

    @pytest.mark.parametrize(
        "url", ["https://other.example.org/", "https://ris.example.org:8443/", "http://127.0.0.1/"]
    )
    def test_to_a_host_that_is_not_named_is_refused(self, service: Any, url: str) -> None:
        assert refusal(service, url) == (422, "webhook_refused")

    @pytest.mark.parametrize("url", ["", "ris.example.org", "http://ris.example.org/", "https://a:b@ris.example.org/"])
    def test_that_is_no_url_is_refused(self, service: Any, url: str) -> None:
        assert refusal(service, url) == (422, "invalid_parameter")

    def test_where_there_are_none_is_refused(self, serve: Any, broker: Any) -> None:
        assert refusal(serve(redis_url=broker.url), URL) == (422, "webhook_refused")


class TestDelivery:
    @pytest.mark.parametrize("end", ["finish", "fail", "cancel"])
    def test_is_shown_with_the_job_from_its_end(self, service: Any, end: str) -> None:
        job_id = service.submit(webhook=URL)
        if end == "cancel":
            assert service.client.delete(f"/jobs/{job_id}").json()["state"] == "cancelled"
        else:
            getattr(service, end)(job_id)
        owed = {"destination": "webhook", "state": "pending", "attempts": 0, "finished": None, "error": None}
        assert service.client.get(f"/jobs/{job_id}").json()["deliveries"] == [owed]
        assert (
            'ncagate_deliveries_kept{destination="webhook",state="pending"} 1.0' in service.client.get("/metrics").text
        )
