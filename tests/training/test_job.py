import json
from pathlib import Path

import pytest
from PIL import Image

from model_store.loaded import load_version
from model_store.manifest import Manifest
from model_store.registry import Registry
from training.errors import CheckpointMismatchError, InvalidConfigError, NoTrainingDataError
from training.job import run

CONFIG = """
seed = 3
validation_fraction = 0.25

[model]
name = "ball"
modalities = ["MR"]
spacing_mm = [1.0, 1.0, 1.0]
licence = "CC0-1.0"
attribution = "Made up for a test."
intended_use = "None."

[[segments]]
name = "ball"
labels = [1]
code = { scheme = "99TEST", value = "1", meaning = "Ball" }

[architecture]
channels = 8
hidden = 16
levels = [{ kernel = 3, steps = 4, scale = [2, 2, 2] }, { kernel = 3, steps = 6 }]

[optimisation]
iterations = 150
crop = [16, 16, 16]
patches = [{ start = 0.0, size = [12, 12, 12] }]
warmup = 10
average = 0.9
checkpoint_every = 50

[calibration]
members = 4
scans = 12
spikes_per_scan = 2
spike_intensity = [1.0, 10.0]
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "ball.toml"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("job")


@pytest.fixture(scope="module")
def manifest(config: Path, folder: Path, ball_folder: Path) -> Manifest:
    """One whole run of the job."""
    return run(data=ball_folder, config=config, store=folder / "store", run=folder / "run")


class TestRun:
    def test_learns_the_task_and_says_so(self, manifest: Manifest) -> None:
        assert manifest.metrics["validation"]["clean"]["dice_mean"] > 0.85

    def test_publishes_a_whole_version(self, manifest: Manifest, folder: Path) -> None:
        loaded = load_version(Registry(folder / "store", shipped=None), "ball")
        assert loaded.manifest == manifest

    def test_the_manifest_says_where_the_weights_come_from(self, manifest: Manifest) -> None:
        record = manifest.training
        assert (len(record.training_scans), len(record.validation_scans)) == (12, 4)
        assert not set(record.training_scans) & set(record.validation_scans)
        assert record.seed == record.config["seed"] == 3
        assert manifest.licence == "CC0-1.0"

    def test_there_is_a_line_for_every_ensemble(self, manifest: Manifest) -> None:
        assert [line.members for line in manifest.calibration.lines] == [2, 3, 4]
        assert manifest.calibration.slope < 0

    def test_every_artefact_of_the_paper_is_evaluated(self, manifest: Manifest) -> None:
        table = manifest.metrics["validation"]
        assert set(table) == {"clean", "noise", "spike", "ghosting", "artefacts"}
        assert table["artefacts"]["scans"] == 3 * table["clean"]["scans"] == 12
        for figures in table.values():
            assert figures["failures"] + figures["passes"] == figures["scans"]
            assert figures["detected"] + figures["false_negatives"] == figures["failures"]

    def test_leaves_metrics_and_pictures(self, manifest: Manifest, folder: Path) -> None:
        assert len((folder / "run" / "metrics.csv").read_text().splitlines()) == 151
        for name in ("curves.png", "calibration.png"):
            with Image.open(folder / "run" / name) as picture:
                assert picture.width > 500
        outcomes = json.loads((folder / "run" / "outcomes.json").read_text())
        assert {one["condition"] for one in outcomes["calibration"]} == {"clean", "spike"}

    def test_does_not_begin_anew_over_a_run_that_is_there(
        self, manifest: Manifest, config: Path, folder: Path, ball_folder: Path
    ) -> None:
        with pytest.raises(CheckpointMismatchError, match="--resume"):
            run(data=ball_folder, config=config, store=folder / "store", run=folder / "run")


class TestRefusals:
    def test_a_folder_without_labelled_scans(self, config: Path, tmp_path: Path) -> None:
        with pytest.raises(NoTrainingDataError):
            run(data=tmp_path, config=config, store=tmp_path, run=tmp_path / "run")

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("seed = 3", "seed = "),
            ("seed = 3", "sed = 3"),
            ("crop = [16, 16, 16]", "crop = [15, 16, 16]"),
            ("kernel = 3, steps = 6", "kernel = 4, steps = 6"),
        ],
        ids=["not TOML", "unknown key", "crop that the scale does not divide", "even kernel"],
    )
    def test_a_configuration_that_makes_no_sense(self, ball_folder: Path, tmp_path: Path, old: str, new: str) -> None:
        path = tmp_path / "bad.toml"
        path.write_text(CONFIG.replace(old, new))
        with pytest.raises(InvalidConfigError, match=r"bad\.toml"):
            run(data=ball_folder, config=path, store=tmp_path, run=tmp_path / "run")
