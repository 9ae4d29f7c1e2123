import csv
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from training import checkpoint
from training.config import TrainingConfig
from training.data import Case, folds, load_cases
from training.errors import CheckpointMismatchError, DivergedError
from training.loop import METRICS_FILE, Report, learning_rate, new_state, train

TinyConfig = Callable[..., TrainingConfig]


def weights(model: torch.nn.Module) -> np.ndarray:
    return torch.cat([p.detach().flatten() for p in model.parameters()]).numpy()


class TestTrain:
    def cases(self, folder: Path, config: TrainingConfig) -> list[Case]:
        return list(folds(load_cases(folder, config=config), config=config)[0].training)

    def test_the_loss_falls_on_an_easy_task(self, ball_folder: Path, tiny_config: TinyConfig, tmp_path: Path) -> None:
        config = tiny_config(iterations=60, checkpoint_every=100)
        train(new_state(config), self.cases(ball_folder, config), config=config, run=tmp_path)
        with (tmp_path / METRICS_FILE).open() as file:
            losses = [float(row["loss"]) for row in csv.DictReader(file)]
        assert len(losses) == 60
        assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:10])

    def test_a_resumed_run_ends_where_the_uninterrupted_one_does(
        self, ball_folder: Path, tiny_config: TinyConfig, tmp_path: Path
    ) -> None:
        config = tiny_config()
        cases = self.cases(ball_folder, config)
        whole = new_state(config)
        (tmp_path / "whole").mkdir()
        train(whole, cases, config=config, run=tmp_path / "whole")

        class KilledError(Exception):
            pass

        def kill(report: object) -> None:
            if report.iteration == 5:  # type: ignore[attr-defined]
                raise KilledError

        halved = tmp_path / "halved"
        halved.mkdir()
        with pytest.raises(KilledError):
            train(new_state(config), cases, config=config, run=halved, on_report=kill)
        resumed = new_state(config)
        checkpoint.restore(resumed, halved, config=config)
        assert resumed.iteration == 4
        train(resumed, cases, config=config, run=halved)
        np.testing.assert_array_equal(weights(resumed.model), weights(whole.model))
        np.testing.assert_array_equal(weights(resumed.average), weights(whole.average))
        with (halved / METRICS_FILE).open() as file:
            assert [int(row["iteration"]) for row in csv.DictReader(file)] == [1, 2, 3, 4, 5, 6]

    def test_a_run_is_not_resumed_under_another_configuration(
        self, ball_folder: Path, tiny_config: TinyConfig, tmp_path: Path
    ) -> None:
        config = tiny_config(iterations=2)
        train(new_state(config), self.cases(ball_folder, config), config=config, run=tmp_path)
        other = tiny_config(iterations=2, learning_rate=1e-4)
        with pytest.raises(CheckpointMismatchError):
            checkpoint.restore(new_state(other), tmp_path, config=other)

    def test_there_must_be_something_to_resume(self, tiny_config: TinyConfig, tmp_path: Path) -> None:
        config = tiny_config()
        with pytest.raises(CheckpointMismatchError):
            checkpoint.restore(new_state(config), tmp_path, config=config)

    def test_both_engines_learn_alike(self, ball_folder: Path, tiny_config: TinyConfig, tmp_path: Path) -> None:
        if os.environ.get("CI") != "true":  # there a missing native engine fails
            pytest.importorskip("nca.engine.native._core", reason="the native engine is not built")
        config = tiny_config(iterations=4)
        losses = {}
        for engine in ("torch", "native"):
            (tmp_path / engine).mkdir()
            reports: list[Report] = []
            state = new_state(config, engine=engine)
            train(
                state, self.cases(ball_folder, config), config=config, run=tmp_path / engine, on_report=reports.append
            )
            losses[engine] = [report.loss for report in reports]
        assert losses["native"] == pytest.approx(losses["torch"], rel=1e-4)

    def test_a_loss_that_is_no_number_stops_the_run(
        self, ball_folder: Path, tiny_config: TinyConfig, tmp_path: Path
    ) -> None:
        config = tiny_config()
        state = new_state(config)
        with torch.no_grad():
            state.model.level(1).dense_out.weight.fill_(torch.nan)
        with pytest.raises(DivergedError, match="iteration 0"):
            train(state, self.cases(ball_folder, config), config=config, run=tmp_path)


class TestLearningRate:
    def test_warms_up_and_falls_by_a_cosine(self, tiny_config: TinyConfig) -> None:
        section = tiny_config(iterations=102, warmup=2, learning_rate=1.0, final_learning_rate=0.2).optimisation
        assert learning_rate(0, section) == 0.5
        assert learning_rate(2, section) == 1.0
        assert learning_rate(52, section) == pytest.approx(0.6)
        assert learning_rate(102, section) == pytest.approx(0.2)
