"""Trainings over the API: a real trainer, a real training, killed and resumed, cancelled, published as a candidate."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.balls import CONFIG, write_balls
from tests.e2e.conftest import Stack

START_S = 120.0
LONG = CONFIG.replace("iterations = 100", "iterations = 1000000").replace(
    "checkpoint_every = 50", "checkpoint_every = 5"
)


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`balls`, which trains in seconds, and `endless`, which does not end."""
    root = tmp_path_factory.mktemp("datasets")
    for name, config in (("balls", CONFIG.replace("checkpoint_every = 50", "checkpoint_every = 5")), ("endless", LONG)):
        (root / name).mkdir()
        write_balls(root / name)
        (root / name / "training.toml").write_text(config)
    return root


@pytest.fixture(scope="module")
def stack(served: Callable[..., AbstractContextManager[Stack]], datasets: Path) -> Iterator[Stack]:
    with served(NCAGATE_DATASETS=str(datasets)) as running:
        yield running


def begin(stack: Stack, dataset: str) -> str:
    answer = stack.client.post("/training", json={"dataset": dataset})
    assert answer.status_code == 202, answer.text
    return str(answer.headers["location"])


def until(stack: Stack, location: str, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The training, once it is so; what it says of itself where it never is."""
    deadline = time.monotonic() + START_S
    while not wanted(training := stack.job(location)):
        assert time.monotonic() < deadline, (training, stack.log())
        time.sleep(0.1)
    return training


def ended(training: dict[str, Any]) -> bool:
    return training["state"] in ("succeeded", "failed", "cancelled")


def learning(training: dict[str, Any]) -> bool:
    """Its first checkpoint is written."""
    return bool(training["state"] == "running" and training["iteration"] > 5)


def programs(stack: Stack) -> list[psutil.Process]:
    """Processes in which something is being trained."""
    below = psutil.Process(stack.pid("trainer")).children(recursive=True)
    return [one for one in below if "training.served" in one.cmdline()]


class TestTraining:
    def test_a_killed_trainer_loses_nothing_and_a_candidate_is_published(self, stack: Stack) -> None:
        location = begin(stack, "balls")
        seen = until(stack, location, lambda one: learning(one) or ended(one))
        assert seen["state"] == "running", seen
        assert seen["iterations"] == 300
        assert 0 < seen["progress"] < 1
        assert seen["loss"] > 0
        assert seen["eta_seconds"] > 0
        before = programs(stack)
        psutil.Process(stack.pid("trainer")).kill()
        psutil.wait_procs(before, timeout=30)
        assert not any(one.is_running() for one in before), "what trains has not died with its trainer"
        training = until(stack, location, ended)
        assert (training["state"], training["error"]) == ("succeeded", None)
        assert training["attempt"] == 2
        assert training["validation_dice"] > 0.2
        log = stack.data / "trainings" / location.rpartition("/")[2] / "log.txt"
        assert "resumed at iteration" in log.read_text()
        model = stack.client.get("/models/ball").json()
        assert model["aliases"] == {"candidate": training["version"]}
        assert [one["version"] for one in model["versions"]] == [training["version"]]

    def test_a_candidate_serves_who_names_it_and_nobody_else(self, stack: Stack, datasets: Path) -> None:
        scan = {"scan": (datasets / "balls" / "images" / "ball_00.nii.gz").read_bytes()}
        refused = stack.client.post("/segment", files=scan, data={"model": "ball"})
        assert (refused.status_code, refused.json()["code"]) == (404, "version_not_found")
        named = stack.client.post("/segment", files=scan, data={"model": "ball", "version": "candidate"})
        assert named.status_code == 202, named.text
        assert stack.finished(named.headers["location"])["state"] == "succeeded"

    def test_a_cancel_stops_what_trains_and_a_second_one_erases_it(self, stack: Stack) -> None:
        location = begin(stack, "endless")
        waits = begin(stack, "balls")
        until(stack, location, learning)
        assert stack.job(waits)["state"] == "queued"
        assert stack.client.delete(waits).json()["state"] == "cancelled"
        assert stack.client.delete(location).status_code == 202
        assert until(stack, location, ended)["state"] == "cancelled"
        deadline = time.monotonic() + 30
        while programs(stack) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert programs(stack) == []
        folder = stack.data / "trainings" / location.rpartition("/")[2]
        assert folder.is_dir()
        assert stack.client.delete(location).status_code == 204
        assert not folder.exists()
        assert stack.client.get(location).json()["code"] == "training_not_found"

    def test_a_configuration_that_makes_no_sense_fails_by_name(self, stack: Stack, datasets: Path) -> None:
        file = datasets / "endless" / "training.toml"
        file.write_text("seed = 'three'")
        try:
            training = until(stack, begin(stack, "endless"), ended)
        finally:
            file.write_text(LONG)
        assert (training["state"], training["error"]["code"]) == ("failed", "invalid_config")

    def test_a_stopping_trainer_hands_its_training_over(self, stack: Stack) -> None:
        location = begin(stack, "endless")
        until(stack, location, learning)
        psutil.Process(stack.pid("trainer")).terminate()
        training = until(stack, location, lambda one: one["attempt"] == 2 and learning(one))
        assert training["state"] == "running"
        assert "handed back" in stack.log()
        stack.client.delete(location)
        assert until(stack, location, ended)["state"] == "cancelled"
