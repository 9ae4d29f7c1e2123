"""Versions that are published, or damaged, while a job is under way."""

from __future__ import annotations

from collections.abc import Callable

from model_store.manifest import Manifest
from model_store.registry import Registry
from tests.chaos.rig import Rig


class TestPublish:
    def test_leaves_a_job_under_way_its_version(self, rig: Rig, publish_tiny: Callable[..., Manifest]) -> None:
        store = rig.data / "models"
        with rig.held("claimed") as held:
            rig.note("version published while a job runs")
            publish_tiny(store, version="1.1.0", seed=1)
            Registry(store, shipped=None).set_alias("tiny", "production", "1.1.0")
            new = rig.client.submit()
        assert rig.client.finished(held.job_id)["version"] == "1.0.0"
        assert rig.client.finished(new)["version"] == "1.1.0"
        Registry(store, shipped=None).set_alias("tiny", "production", "1.0.0")
        rig.client.erase(new)
        rig.settle()


class TestDamage:
    def test_ends_the_jobs_of_that_version_and_touches_no_other(
        self, rig: Rig, publish_tiny: Callable[..., Manifest]
    ) -> None:
        store = rig.data / "models"
        publish_tiny(store, version="2.0.0", seed=2)
        with rig.held("claimed", version="2.0.0") as held:
            rig.note("version damaged while a job runs")
            weights = store / "tiny" / "2.0.0" / "model.safetensors"
            weights.write_bytes(weights.read_bytes()[:-1] + b"?")
            other = rig.client.submit(1)
        job = rig.client.finished(held.job_id)
        assert (job["state"], job["error"]["code"]) == ("failed", "version_corrupt")
        assert rig.client.finished(other)["state"] == "succeeded"
        refused = rig.client.post(version="2.0.0")
        assert refused is not None
        assert (refused.status_code, refused.json()["code"]) == (503, "version_corrupt")
        rig.client.erase(held.job_id)
        rig.settle()
