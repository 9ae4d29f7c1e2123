from __future__ import annotations

from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families


def samples(service: Any) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    page = service.client.get("/metrics", headers={"Accept": "text/plain"}).text
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


class TestHealth:
    def test_livez_answers(self, service: Any) -> None:
        assert service.client.get("/livez").json() == {"status": "ok"}

    def test_readyz_is_ok_with_everything_there(self, service: Any) -> None:
        answer = service.client.get("/readyz")
        assert answer.status_code == 200, answer.text

    def test_readyz_names_the_broker_that_is_away(self, serve: Any, own_redis: Any) -> None:
        answer = serve(redis_url=own_redis.url).client.get("/readyz")
        assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
        assert list(answer.json()["failures"]) == ["broker"]

    def test_readyz_notices_a_broker_that_went_away(self, serve: Any, own_redis: Any) -> None:
        own_redis.start()
        service = serve(redis_url=own_redis.url)
        assert service.client.get("/readyz").status_code == 200
        own_redis.stop()
        assert service.client.get("/readyz").status_code == 503
        assert service.client.get("/livez").status_code == 200


class TestMetrics:
    def test_requests_are_counted_by_route_template(self, service: Any) -> None:
        job_id = service.submit()
        service.client.get(f"/jobs/{job_id}")
        service.client.get("/some/unknown/path")
        found = samples(service)
        labels = (("method", "GET"), ("route", "/jobs/{job_id}"), ("status", "200"))
        assert found["ncagate_http_requests_total", labels] == 1.0
        assert not any(job_id in str(key) or "unknown" in str(key) for key in found)

    def test_an_invented_method_gets_no_label_of_its_own(self, service: Any) -> None:
        service.client.request("BREW", "/jobs")
        assert any(("method", "other") in labels for _, labels in samples(service))

    def test_uploads_are_counted_in_bytes(self, service: Any) -> None:
        service.client.post("/segment", files={"scan": b"x" * 10_000}, data={"model": "tiny"})
        assert 10_000 < samples(service)["ncagate_upload_bytes_total", ()] < 11_000

    def test_the_queue_is_shown(self, service: Any) -> None:
        service.submit()
        found = samples(service)
        assert found["ncagate_queue_depth", ()] == 1.0
        assert found["ncagate_queue_oldest_age_seconds", ()] > 0.0

    def test_jobs_verdicts_and_stages_are_counted(self, service: Any) -> None:
        service.finish(service.submit())
        service.fail(service.submit())
        found = samples(service)
        assert found["ncagate_jobs_total", (("outcome", "succeeded"),)] == 1.0
        assert found["ncagate_jobs_total", (("outcome", "failed"),)] == 1.0
        assert found["ncagate_verdicts_total", (("model", "tiny"), ("verdict", "flag"))] == 1.0
        assert found["ncagate_stage_duration_seconds_sum", (("stage", "segment"),)] == pytest.approx(1.2)
        assert found["ncagate_nqm_bucket", (("le", "0.3"), ("model", "tiny"))] == 1.0
        assert found["ncagate_predicted_dice_count", (("model", "tiny"),)] == 1.0
        assert found["ncagate_queue_wait_seconds_count", ()] == 2.0
        assert found["ncagate_last_success_timestamp_seconds", ()] > 1.7e9

    def test_they_survive_erasure_and_another_gateway_says_the_same(self, service: Any, serve: Any) -> None:
        job_id = service.submit()
        service.finish(job_id)
        service.client.delete(f"/jobs/{job_id}")
        other = serve(redis_url=service.gateway.settings.redis_url)
        key = ("ncagate_jobs_total", (("outcome", "succeeded"),))
        assert samples(service)[key] == samples(other)[key] == 1.0

    def test_models_are_shown_with_their_alias(self, service: Any) -> None:
        labels = (("alias", "production"), ("model", "tiny"), ("version", "1.0.0"))
        assert samples(service)["ncagate_model_info", labels] == 1.0

    def test_names_follow_the_rules(self, service: Any) -> None:
        service.finish(service.submit())
        page = service.client.get("/metrics", headers={"Accept": "text/plain"}).text
        ours = [family for family in text_string_to_metric_families(page) if not family.name.endswith("_created")]
        assert all(family.name.startswith("ncagate_") for family in ours)
        assert all(sample.name.endswith("_total") for one in ours if one.type == "counter" for sample in one.samples)


class TestHeaders:
    def test_every_answer_is_private_and_tagged(self, service: Any) -> None:
        headers = service.client.get("/jobs").headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"
        assert len(headers["X-Request-ID"]) == 32
