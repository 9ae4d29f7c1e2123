from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.clients import NOBODY, Scope
from jobs.queue import TRAINING
from service.access.keys import KeyRepository

TOML = "seed = 1\n"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Datasets: `liver` is one, the others are not."""
    folder = tmp_path_factory.mktemp("deployment")
    root = folder / "datasets"
    for name in ("liver", "bare", "broken", "large"):
        (root / name).mkdir(parents=True)
    (root / "liver" / "training.toml").write_text(TOML)
    (root / "broken" / "training.toml").write_text("seed =")
    (root / "large" / "training.toml").write_text("#" * 70_000)
    (folder / "secret").mkdir()
    (folder / "secret" / "training.toml").write_text(TOML)
    (root / "leak").symlink_to(folder / "secret")
    (root / "file").write_text(TOML)
    return root


@pytest.fixture(scope="module")
def site(serving: Any, shared_redis: Any, tmp_path_factory: pytest.TempPathFactory, root: Path) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("training")
    with serving(folder, redis_url=shared_redis.url, datasets=root, reconcile_s=1000.0) as service:
        yield service


class TestSubmission:
    def test_it_is_queued_with_the_configuration_of_now_and_a_trainer_is_woken(self, site: Any, root: Path) -> None:
        before = site.gateway.broker.waiting(TRAINING)
        answer = site.client.post("/training", json={"dataset": "liver"})
        assert (answer.status_code, answer.json()["state"]) == (202, "queued")
        assert site.gateway.broker.waiting(TRAINING) == before + 1
        (root / "liver" / "training.toml").write_text("seed = 2\n")
        training = site.gateway.trainings.get(answer.json()["id"])
        (root / "liver" / "training.toml").write_text(TOML)
        assert training.config == TOML
        assert site.client.get(answer.headers["location"]).json() == answer.json()
        assert answer.json()["id"] in [one["id"] for one in site.client.get("/training").json()["trainings"]]

    @pytest.mark.parametrize("name", ["spleen", "leak", "file", "liver.toml"])
    def test_what_is_no_folder_of_the_root_is_not_found(self, site: Any, name: str) -> None:
        answer = site.client.post("/training", json={"dataset": name})
        assert (answer.status_code, answer.json()["code"]) == (404, "dataset_not_found")

    @pytest.mark.parametrize("name", ["..", ".", "../secret", "/etc", "", "liver/../liver", "a\x00", "liver\n"])
    def test_what_is_no_name_is_refused(self, site: Any, name: str) -> None:
        answer = site.client.post("/training", json={"dataset": name})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_parameter")

    @pytest.mark.parametrize("name", ["bare", "broken", "large"])
    def test_without_a_configuration_that_can_be_read_it_is_unsuitable(self, site: Any, name: str) -> None:
        answer = site.client.post("/training", json={"dataset": name})
        assert (answer.status_code, answer.json()["code"]) == (422, "dataset_unsuitable")

    def test_the_reconciler_wakes_a_trainer_for_what_the_broker_lost(self, site: Any) -> None:
        site.client.post("/training", json={"dataset": "liver"})
        with site.gateway.broker._celery.connection_for_write() as connection:
            connection.default_channel.queue_purge(TRAINING.queue)
        site.gateway.reconcile()
        assert site.gateway.broker.waiting(TRAINING) == site.gateway.trainings.queued() > 0


class TestAccess:
    def test_it_is_for_administrators_only(self, site: Any) -> None:
        keys = KeyRepository(site.gateway.repository.engine)
        _, ward = keys.create("ward", [Scope.SUBMIT, Scope.READ], by=NOBODY)
        _, admin = keys.create("it", [Scope.ADMIN], by=NOBODY)

        def status(key: str, method: str, path: str) -> int:
            headers = {"Authorization": f"Bearer {key}"}
            body = {"json": {"dataset": "liver"}} if method == "POST" else {}
            return int(site.client.request(method, path, headers=headers, **body).status_code)

        try:
            for method, path in (("POST", "/training"), ("GET", "/training"), ("GET", "/training/x")):
                assert status(ward, method, path) == 403
            assert status(ward, "DELETE", "/training/x") == 403
            assert status(admin, "POST", "/training") == 202
            assert status(admin, "GET", "/training/x") == 404
        finally:
            site.client.headers["Authorization"] = f"Bearer {admin}"
