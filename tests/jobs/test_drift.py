from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from sqlalchemy import Engine

from jobs.drift import DriftMonitor, VersionDrift, signals_of
from jobs.models import JobRequest
from jobs.repository import JobRepository
from model_store.errors import ModelNotFoundError
from model_store.manifest import Manifest
from model_store.reference import Reference
from model_store.registry import Registry
from tests.jobs.conftest import Clock

RNG = np.random.default_rng(0)
REFERENCE = Reference(
    tuple(f"scan {number}" for number in range(100)),
    {"nqm": tuple(RNG.normal(0.05, 0.01, 100)), "roughness_x": tuple(RNG.normal(0.1, 0.01, 100))},
)
Publish = Callable[..., Manifest]


def result(*, nqm: float | None = 0.05, roughness: float = 0.1, members: int = 10) -> dict[str, Any]:
    return {
        "segments": [{"nqm": 0.9, "volume_ml": 1.0}, {"nqm": nqm, "predicted_dice": 0.9, "volume_ml": 3.0}],
        "members": members,
        "nqm": 0.9,
        "input_statistics": {"roughness_x": roughness},
    }


def like_the_reference(scale: float = 1.0) -> dict[str, Any]:
    return result(nqm=float(RNG.normal(0.05, 0.01)), roughness=scale * float(RNG.normal(0.1, 0.01)))


class Site:
    """Jobs of the tiny model that end as the test says, and the monitor over them."""

    def __init__(self, engine: Engine, clock: Clock, store: Path) -> None:
        self.jobs, self.clock = JobRepository(engine, clock=clock), clock
        self.monitor = DriftMonitor(engine, Registry(store, shipped=None), window=20, alpha=0.01)

    def job(self, found: dict[str, Any] | None, *, version: str = "1.0.0") -> str:
        self.clock.now += 1.0
        request = JobRequest(model="tiny", version=version, min_dice=0.8, members=10)
        job_id = self.jobs.create(uuid4().hex, request).id
        claimed = self.jobs.claim(job_id, 60.0)
        assert claimed is not None
        if found is None:
            assert self.jobs.fail(job_id, claimed.attempt, "gzip_truncated", "it ends early")
        else:
            assert self.jobs.succeed(job_id, claimed.attempt, found)
        return job_id

    def said(self) -> VersionDrift:
        (one,) = self.monitor.model("tiny")
        return one


@pytest.fixture
def site(engine: Engine, clock: Clock, tmp_path: Path, publish_tiny: Publish) -> Site:
    publish_tiny(tmp_path / "store", reference=REFERENCE)
    publish_tiny(tmp_path / "store", version="2.0.0")
    return Site(engine, clock, tmp_path / "store")


class TestMonitor:
    def test_says_nothing_where_no_job_has_finished(self, site: Site) -> None:
        site.job(None)
        assert site.monitor.model("tiny") == site.monitor.models() == []

    def test_is_quiet_while_jobs_are_like_the_reference(self, site: Site) -> None:
        for _ in range(20):
            site.job(like_the_reference())
        said = site.said()
        assert (said.version, said.jobs, said.scans, said.alarms) == ("1.0.0", 20, 100, ())
        assert [(one.signal, one.jobs) for one in said.signals] == [("nqm", 20), ("roughness_x", 20)]

    def test_notices_another_scanner_and_names_what_changed(self, site: Site) -> None:
        for scale in [1.0] * 20 + [1.5] * 20:
            site.job(like_the_reference(scale))
        assert site.said().alarms == ("roughness_x",)

    def test_looks_at_the_last_jobs_alone(self, site: Site) -> None:
        for scale in [1.5] * 20 + [1.0] * 20:
            site.job(like_the_reference(scale))
        assert site.said().alarms == ()

    def test_failed_jobs_and_those_of_other_versions_do_not_count(self, site: Site) -> None:
        for found in [like_the_reference(), None]:
            site.job(found)
        site.job(like_the_reference(), version="2.0.0")
        assert [(one.version, one.jobs, one.scans) for one in site.monitor.models()] == [
            ("1.0.0", 1, 100),
            ("2.0.0", 1, None),
        ]

    def test_erased_jobs_do_not_count(self, site: Site) -> None:
        kept, gone = site.job(like_the_reference()), site.job(like_the_reference())
        assert site.jobs.erase(gone)
        assert site.said().jobs == 1
        assert site.jobs.erase(kept)
        assert site.monitor.models() == []

    def test_a_damaged_version_is_left_out(self, site: Site, tmp_path: Path) -> None:
        for version in ("1.0.0", "2.0.0"):
            site.job(like_the_reference(), version=version)
        (tmp_path / "store" / "tiny" / "1.0.0" / "reference.csv").write_text("scan\n")
        assert [one.version for one in site.monitor.models()] == ["2.0.0"]

    def test_a_model_that_is_none_is_refused(self, site: Site) -> None:
        with pytest.raises(ModelNotFoundError):
            site.monitor.model("brain")


class TestSignals:
    def test_are_those_of_the_union(self) -> None:
        assert signals_of(result(nqm=0.07), members=10) == {
            "nqm": 0.07, "predicted_dice": 0.9, "volume_ml": 3.0, "roughness_x": 0.1,
        }  # fmt: skip

    def test_an_ensemble_of_another_size_says_nothing_of_nqm(self) -> None:
        assert set(signals_of(result(members=4), members=10)) == {"volume_ml", "roughness_x"}

    def test_results_of_older_workers_have_no_figures_of_the_input(self) -> None:
        older = {"nqm": 0.1, "predicted_dice": 0.8, "volume_ml": 2.0, "members": 10, "segments": []}
        assert signals_of(older, members=10) == {"nqm": 0.1, "predicted_dice": 0.8, "volume_ml": 2.0}
