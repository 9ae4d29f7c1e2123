import json
from functools import partial
from pathlib import Path

import pytest

from benchmarks.training import ENGINES, load_scans, main, measure, random_scans
from training.config import PatchSection, TrainingConfig, load_config
from training.loop import new_state

SHIPPED = Path(__file__).resolve().parents[2] / "training" / "configs" / "hippocampus.toml"


@pytest.fixture(scope="module")
def config() -> TrainingConfig:
    """The shipped configuration on small crops."""
    shipped = load_config(SHIPPED)
    patches = (PatchSection(start=0.0, size=(8, 8, 8)), PatchSection(start=0.6, size=(12, 12, 12)))
    small = {"crop": (16, 16, 16), "patches": patches, "iterations": 5000}
    optimisation = shipped.optimisation.model_copy(update=small)
    return shipped.model_copy(update={"optimisation": optimisation})


class TestMeasure:
    def test_every_part_has_every_engine_and_its_ratio_to_the_first(self, config: TrainingConfig) -> None:
        rows = measure({"one": new_state, "other": new_state}, random_scans(config), config=config, rounds=1)
        assert [row["part"] for row in rows[::2]] == ["8x8x8", "12x12x12", "all 5000 iterations"]
        for first, second in zip(rows[::2], rows[1::2], strict=True):
            assert (first["engine"], second["engine"], first["times_faster"]) == ("one", "other", 1.0)
            assert second["times_faster"] == pytest.approx(first["seconds"] / second["seconds"])

    def test_the_whole_run_is_the_sum_of_its_parts(self, config: TrainingConfig) -> None:
        small, large, whole = measure({"torch": new_state}, random_scans(config), config=config, rounds=1)
        assert whole["seconds"] == pytest.approx(5000 * (0.6 * small["seconds"] + 0.4 * large["seconds"]))

    def test_an_engine_that_does_not_run_here_is_left_out(self, config: TrainingConfig) -> None:
        engines = {"torch": partial(new_state, engine="torch"), "abacus": partial(new_state, engine="abacus")}
        rows = measure(engines, random_scans(config), config=config, rounds=1)
        assert {row["engine"] for row in rows} == {"torch"}


class TestScans:
    def test_a_few_of_the_real_ones_are_read(self, shared_data: Path) -> None:
        scans = load_scans(shared_data / "hippocampus", config=load_config(SHIPPED))
        assert len(scans) == 16
        assert all(scan.target.any() for scan in scans)


class TestMain:
    def test_trains_on_noise_where_there_are_no_scans(self, tmp_path: Path) -> None:
        file = tmp_path / "out" / "training.json"
        arguments = ["--json", str(file), "--data", str(tmp_path / "none"), "--config", str(SHIPPED), "--rounds", "1"]
        assert main(arguments) == 0
        engines = [row["engine"] for row in json.loads(file.read_text(encoding="utf-8"))]
        assert engines[:2] == ["published", "torch"]
        assert set(engines) <= set(ENGINES)
