"""The drift monitor as clients and Prometheus see it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jobs.shadow import Finding, Pair
from tests.service.test_operations import samples

JOBS = 12


@pytest.fixture
def drifted(service: Any, store: Path, publish_tiny: Any) -> Any:
    """A gateway whose model has a reference that its jobs are not like."""
    from model_store.reference import Reference

    scans = tuple(f"scan {number}" for number in range(80))
    nqm, volume = (tuple(start + number / 1000 for number in range(80)) for start in (0.01, 3.2))
    publish_tiny(store, version="1.2.0", reference=Reference(scans, {"nqm": nqm, "volume_ml": volume}))
    for _ in range(JOBS):
        service.finish(service.submit(version="1.2.0"))
    return service


class TestHealth:
    def test_tells_signal_by_signal_what_has_drifted(self, drifted: Any) -> None:
        answer = drifted.client.get("/models/tiny/health")
        assert answer.status_code == 200, answer.text
        (version,) = answer.json()["versions"]
        assert (version["version"], version["jobs"], version["reference_scans"], version["alarm"]) == (
            "1.2.0", JOBS, 80, True,
        )  # fmt: skip
        nqm, volume = version["signals"]
        assert (nqm["signal"], nqm["alarm"], nqm["ks"], nqm["median"]) == ("nqm", True, 1.0, 0.3)
        assert (volume["signal"], volume["alarm"]) == ("volume_ml", False)
        assert volume["ks"] < volume["limit"]

    def test_a_version_without_a_reference_is_only_counted(self, service: Any) -> None:
        service.finish(service.submit())
        (version,) = service.client.get("/models/tiny/health").json()["versions"]
        assert (version["jobs"], version["reference_scans"], version["alarm"], version["signals"]) == (
            1,
            None,
            False,
            [],
        )

    def test_an_unknown_model_is_a_404(self, service: Any) -> None:
        answer = service.client.get("/models/brain/health")
        assert (answer.status_code, answer.json()["code"]) == (404, "model_not_found")


class TestMetrics:
    def test_are_those_of_the_monitor(self, drifted: Any) -> None:
        found = samples(drifted)
        version = (("model", "tiny"), ("version", "1.2.0"))
        assert found["ncagate_drift_window_jobs", version] == JOBS
        for signal, alarm in [("nqm", 1.0), ("volume_ml", 0.0)]:
            labels = (version[0], ("signal", signal), version[1])
            assert found["ncagate_drift_alarm", labels] == alarm
        assert found["ncagate_drift_ks", (version[0], ("signal", "nqm"), version[1])] == 1.0


class TestShadows:
    def test_a_candidate_is_told_beside_its_version(self, service: Any) -> None:
        job_id, pair = service.submit(), Pair("tiny", "1.0.0", "1.1.0")
        service.finish(job_id)
        shadows = service.gateway.shadows
        assert shadows.begin(pair, 1.0).id == job_id
        finding = Finding(0.9, 0.01, -0.02, verdict_changed=True, seconds=1.0, candidate_seconds=2.0)
        shadows.compared(job_id, pair, finding)
        (view,) = service.client.get("/models/tiny/health").json()["shadows"]
        assert view == {
            "version": "1.0.0", "candidate": "1.1.0", "jobs": 1, "outcomes": {}, "dice": 0.9, "dice_low": 0.9,
            "nqm": 0.01, "predicted_dice": -0.02, "verdicts_changed": 1, "slowdown": 2.0,
        }  # fmt: skip
        found, labels = samples(service), (("candidate", "1.1.0"), ("model", "tiny"))
        assert found["ncagate_shadow_dice", (*labels, ("version", "1.0.0"))] == 0.9
        assert found["ncagate_shadow_jobs", (*labels, ("outcome", "compared"), ("version", "1.0.0"))] == 1.0
