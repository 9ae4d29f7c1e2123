import tomllib
from dataclasses import replace
from math import prod
from pathlib import Path

import pytest

from training.config import load_config
from training.plan import CROP_VOXELS_MAX, Facts, make_plan, read_facts, to_toml

CONFIGS = Path(__file__).resolve().parents[2] / "training" / "configs"
HIPPOCAMPUS = Facts(182, (1.0, 1.0, 1.0), (35, 50, 36), (1, 2))
PROSTATE = Facts(32, (0.62, 0.62, 3.6), (320, 320, 20), (1, 2))
HEART = Facts(60, (1.25, 1.25, 8.0), (192, 192, 10), (1, 2, 3))
ALL = pytest.mark.parametrize("facts", [HIPPOCAMPUS, PROSTATE, HEART], ids=["hippocampus", "prostate", "heart"])


class TestPlan:
    @pytest.mark.parametrize("facts", [PROSTATE, HEART], ids=["prostate", "heart"])
    def test_thick_slices_are_not_halved(self, facts: Facts) -> None:
        first_halving = make_plan(facts).scales[-2]
        assert first_halving == (2, 2, 1)

    def test_cubes_are_halved_along_every_axis(self) -> None:
        assert make_plan(HIPPOCAMPUS).scales == ((2, 2, 2), (2, 2, 2), (1, 1, 1))

    @ALL
    def test_what_is_trained_on_fits_and_divides(self, facts: Facts) -> None:
        plan = make_plan(facts)
        assert prod(plan.crop) <= CROP_VOXELS_MAX
        for axis in range(3):
            assert plan.crop[axis] % prod(scale[axis] for scale in plan.scales) == 0
            for patch in plan.patches:
                assert patch[axis] <= plan.crop[axis]
                assert patch[axis] % plan.scales[-2][axis] == 0

    @ALL
    @pytest.mark.parametrize("union", [True, False])
    def test_the_configuration_can_be_trained(self, tmp_path: Path, facts: Facts, union: bool) -> None:
        path = tmp_path / "plan.toml"
        path.write_text(to_toml(make_plan(facts), name="thing", union=union))
        config = load_config(path)
        assert len(config.segments) == (1 if union else len(facts.labels))
        assert {label for one in config.segments for label in one.labels} == set(facts.labels)
        assert config.model.spacing_mm == facts.spacing
        assert config.network().parameter_count() <= 4 * 3_712


class TestFacts:
    def test_are_those_of_the_folder(self, ball_folder: Path) -> None:
        facts = read_facts(ball_folder)
        assert facts == Facts(16, (1.0, 1.0, 1.0), (18, 20, 17), (1,))

    def test_may_be_of_voxels_of_ones_choice(self, ball_folder: Path) -> None:
        facts = read_facts(ball_folder, spacing_mm=(2.0, 2.0, 1.0))
        assert (facts.spacing, facts.shape) == ((2.0, 2.0, 1.0), (9, 10, 17))

    def test_name_the_volumes_of_several(self, ball_folder: Path) -> None:
        text = to_toml(make_plan(replace(read_facts(ball_folder), volumes=(1, 0))), name="ball", union=True)
        assert tomllib.loads(text)["model"]["volumes"] == [1, 0]


class TestShippedConfigurations:
    @pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
    def test_can_be_trained(self, path: Path) -> None:
        assert load_config(path).network().parameter_count() <= 16_192
