import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import ablations
from benchmarks.contenders import FULL, Automaton, UNet, contenders
from imaging.nifti import write_nifti
from tests.balls import BALL
from training.config import load_config

CONFIG = f"""
{BALL}
[architecture]
levels = [{{ kernel = 3, steps = 4, scale = [2, 2, 2] }}, {{ kernel = 3, steps = 6 }}]

[optimisation]
iterations = 1
crop = [16, 16, 16]
patches = [{{ start = 0.0, size = [8, 8, 8] }}, {{ start = 0.5, size = [16, 16, 16] }}]
"""
TRAINED = (FULL, "3-D U-Net")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration, and six bright balls to learn from."""
    folder = tmp_path_factory.mktemp("ablations")
    (folder / "ball.toml").write_text(CONFIG)
    for kind in ("images", "labels"):
        (folder / kind).mkdir()
    grid = np.indices((17, 18, 16)).astype(np.float32)
    for number in range(6):
        rng = np.random.default_rng(number)
        ball = (np.sqrt(((grid - 8) ** 2).sum(0)) < rng.uniform(4, 6)).astype(np.uint8)
        image = (ball * 100 + rng.normal(0, 15, ball.shape)).astype(np.float32)
        write_nifti(folder / "images" / f"{number}.nii.gz", image, np.eye(4))
        write_nifti(folder / "labels" / f"{number}.nii.gz", ball, np.eye(4))
    return folder


def arguments(folder: Path) -> list[str]:
    return [
        "--config", str(folder / "ball.toml"), "--data", str(folder), "--run", str(folder / "run"), "--seeds", "1",
        "--minutes", "0.02", "--picture", str(folder / "picture.png"), "--json", str(folder / "rows.json"),
    ]  # fmt: skip


class TestContenders:
    def test_differ_in_one_thing_from_the_configuration(self) -> None:
        config = load_config(Path("training/configs/hippocampus.toml"))
        found = contenders(config)
        assert isinstance(found[FULL], Automaton)
        networks = {name: one.config.network() for name, one in found.items() if isinstance(one, Automaton)}
        assert networks[FULL] == config.network()
        assert [len(networks[f"{count} levels"].levels) for count in (2, 3, 4)] == [2, 3, 4]
        assert networks["2 levels, kernel 7 and 3 (paper)"].parameter_count() == 12_480
        assert networks["half the steps"].total_steps * 2 == networks[FULL].total_steps
        assert networks["no batch duplication"] == networks[FULL]
        assert sum(isinstance(one, UNet) for one in found.values()) == 2


class TestMain:
    def test_trains_once_judges_and_prints(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert ablations.main([*arguments(folder), "--only", *TRAINED]) == 0
        first = capsys.readouterr().out
        assert first.count("iterations, Dice") == 2
        assert ablations.main([*arguments(folder), "--only", *TRAINED]) == 0
        assert "iterations" not in capsys.readouterr().out  # what stands is not trained again
        assert ablations.main([*arguments(folder), "--print"]) == 0
        rows = json.loads((folder / "rows.json").read_text())
        assert [(row["name"], row["members"]) for row in rows] == [
            *((FULL, members) for members in ablations.MEMBERS), ("3-D U-Net", 1),
        ]  # fmt: skip
        assert all(row["seconds"] > 0 and row["peak_mb"] > 0 and 0 <= row["dice_mean"] <= 1 for row in rows)
        assert rows[-1]["dice_mean"] > 0.5  # a bright ball is soon found
        with Image.open(folder / "picture.png") as picture:
            assert picture.size[0] > 300
