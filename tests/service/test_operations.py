from __future__ import annotations

import shutil
import time
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
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

    def test_bodies_are_counted_in_bytes_both_ways(self, service: Any) -> None:
        answer = service.client.post("/segment", files={"scan": b"x" * 10_000}, data={"model": "tiny"})
        found, labels = samples(service), (("method", "POST"), ("route", "/segment"))
        assert 10_000 < found["ncagate_http_received_bytes_total", labels] < 11_000
        assert found["ncagate_http_sent_bytes_total", labels] == len(answer.content)

    def test_what_is_refused_before_it_is_read_counts_too(self, service: Any) -> None:
        service.client.post("/segment", files={"scan": b"x" * 300_000}, data={"model": "tiny"})
        service.client.get(f"/jobs/{'0' * 32}")
        found = samples(service)
        assert found["ncagate_http_problems_total", (("code", "body_too_large"),)] == 1.0
        assert found["ncagate_http_problems_total", (("code", "job_not_found"),)] == 1.0
        assert found["ncagate_http_problems_total", (("code", "internal_error"),)] == 0.0

    def test_a_failed_jobs_own_problem_gets_no_label_of_its_own(self, service: Any) -> None:
        job_id = service.submit()
        service.fail(job_id)
        assert service.client.get(f"/jobs/{job_id}/mask").json()["code"] == "gzip_truncated"
        found = samples(service)
        assert found["ncagate_http_problems_total", (("code", "job_failed"),)] == 1.0
        assert ("ncagate_http_problems_total", (("code", "gzip_truncated"),)) not in found

    def test_a_mistake_of_the_gateway_is_counted(self, service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(type(service.gateway.repository), "list", None)
        assert service.client.get("/jobs", headers={"Connection": "close"}).status_code == 500
        found = samples(service)
        assert found["ncagate_http_problems_total", (("code", "internal_error"),)] == 1.0
        labels = (("method", "GET"), ("route", "/jobs"), ("status", "500"))
        assert found["ncagate_http_requests_total", labels] == 1.0

    def test_requests_under_way_are_shown(self, service: Any) -> None:
        with service.client.stream("GET", f"/jobs/{service.submit()}/events") as events:
            chunks = events.iter_raw()  # closes the stream where nobody holds it
            next(chunks)
            assert samples(service)["ncagate_http_requests_in_flight", ()] == 2.0
        deadline = time.monotonic() + 20.0
        while samples(service)["ncagate_http_requests_in_flight", ()] > 1.0:
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def test_a_duration_carries_the_identifier_of_its_request(self, service: Any) -> None:
        identifier = service.client.get("/jobs").headers["X-Request-ID"]
        headers = {"Accept": "application/openmetrics-text; version=1.0.0"}
        page = service.client.get("/metrics", headers=headers).text
        exemplars = [
            sample.exemplar.labels
            for family in openmetrics(page)
            for sample in family.samples
            if sample.exemplar is not None
        ]
        assert {"request_id": identifier} in exemplars

    def test_the_queue_is_shown_by_priority(self, service: Any) -> None:
        service.submit(priority="urgent")
        found = samples(service)
        assert found["ncagate_queue_depth", (("priority", "urgent"),)] == 1.0
        assert found["ncagate_queue_depth", (("priority", "routine"),)] == 0.0
        assert found["ncagate_queue_oldest_age_seconds", (("priority", "urgent"),)] > 0.0

    def test_jobs_verdicts_and_stages_are_counted(self, service: Any) -> None:
        service.finish(service.submit())
        service.fail(service.submit())
        found, version = samples(service), (("model", "tiny"), ("version", "1.0.0"))
        assert found["ncagate_jobs_total", (("code", ""), ("outcome", "succeeded"))] == 1.0
        assert found["ncagate_jobs_total", (("code", "gzip_truncated"), ("outcome", "failed"))] == 1.0
        assert found["ncagate_attempts_total", ()] == 2.0
        assert found["ncagate_verdicts_total", (version[0], ("verdict", "flag"), version[1])] == 1.0
        reason = (version[0], ("reason", "nqm_above_threshold"), version[1])
        assert found["ncagate_flag_reasons_total", reason] == 1.0
        assert found["ncagate_stage_duration_seconds_sum", (("stage", "segment"),)] == pytest.approx(1.2)
        assert found["ncagate_nqm_bucket", (("le", "0.3"), *version)] == 1.0
        assert found["ncagate_predicted_dice_count", version] == 1.0
        assert found["ncagate_queue_wait_seconds_count", (("priority", "routine"),)] == 2.0
        assert found["ncagate_last_success_timestamp_seconds", ()] > 1.7e9

    def test_counters_are_there_before_their_first_event(self, service: Any) -> None:
        found = samples(service)
        assert found["ncagate_jobs_total", (("code", "attempts_exhausted"), ("outcome", "failed"))] == 0.0
        assert found["ncagate_retries_total", (("cause", "worker_lost"),)] == 0.0

    def test_the_disk_is_shown_with_what_has_to_stay_free(self, serve: Any, broker: Any) -> None:
        service = serve(redis_url=broker.url, disk_free_min=12_345)
        found, usage = samples(service), shutil.disk_usage(service.gateway.settings.data)
        assert found["ncagate_disk_size_bytes", ()] == usage.total
        assert found["ncagate_disk_free_bytes", ()] == pytest.approx(usage.free, rel=0.2)
        assert found["ncagate_disk_reserve_bytes", ()] == 12_345.0

    def test_a_worker_is_up_once_it_has_shown_that_it_works(self, service: Any) -> None:
        workers = service.gateway.workers
        workers.started("one"), workers.started("deaf"), workers.seen("one")
        found = samples(service)
        assert found["ncagate_workers", (("state", "up"),)] == 1.0
        assert found["ncagate_workers", (("state", "silent"),)] == 1.0
        assert found["ncagate_canary_age_seconds", (("worker", "one"),)] < 60.0
        deadline = time.monotonic() + 20.0  # 18 rounds of 0.1 s
        while samples(service)["ncagate_workers", (("state", "up"),)] > 0.0:
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def test_a_database_that_is_away_is_said_and_the_rest_shown(self, service: Any) -> None:
        with service.gateway.repository.engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE job_tallies RENAME TO elsewhere")
        found = samples(service)
        assert found["ncagate_database_up", ()] == 0.0
        assert found["ncagate_disk_size_bytes", ()] > 0.0
        assert not any(name == "ncagate_queue_depth" for name, _ in found)

    def test_they_survive_erasure_and_another_gateway_says_the_same(self, service: Any, serve: Any) -> None:
        job_id = service.submit()
        service.finish(job_id)
        service.client.delete(f"/jobs/{job_id}")
        other = serve(redis_url=service.gateway.settings.redis_url)
        key = ("ncagate_jobs_total", (("code", ""), ("outcome", "succeeded")))
        assert samples(service)[key] == samples(other)[key] == 1.0

    def test_models_are_shown_with_their_alias(self, service: Any) -> None:
        labels = (("alias", "production"), ("model", "tiny"), ("version", "1.0.0"))
        assert samples(service)["ncagate_model_info", labels] == 1.0

    def test_names_follow_the_rules(self, service: Any) -> None:
        service.finish(service.submit())
        page = service.client.get("/metrics", headers={"Accept": "text/plain"}).text
        ours = list(text_string_to_metric_families(page))
        assert all(family.name.startswith("ncagate_") for family in ours)
        assert all(sample.name.endswith("_total") for one in ours if one.type == "counter" for sample in one.samples)


class TestHeaders:
    def test_every_answer_is_private_and_tagged(self, service: Any) -> None:
        headers = service.client.get("/jobs").headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"
        assert len(headers["X-Request-ID"]) == 32
