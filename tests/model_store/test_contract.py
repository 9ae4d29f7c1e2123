from collections.abc import Callable

import numpy as np
import pytest

from model_store.contract import QUANTILES, far_outside, violations
from model_store.manifest import (
    InputContract,
    IntensityQuantiles,
    LowPrecision,
    Manifest,
    Preprocessing,
    structure_names,
)
from nca.architecture import Architecture, Level
from nca.gate import Plausible

CONTRACT = InputContract(
    modalities=("MR",),
    spacing_mm=((0.5, 2.0), (0.5, 2.0), (0.5, 2.0)),
    extent_mm=((30.0, 50.0), (40.0, 60.0), (20.0, 50.0)),
    intensity=IntensityQuantiles(quantiles=QUANTILES, low=(-4.0,) * 7, high=(4.0,) * 7),
    volume_ml=((1.0, 6.0), (2.0, 8.0)),
    border_max=(0.01, 0.02),
)
IMAGE = np.random.default_rng(0).normal(size=(1, 10, 10, 10)).astype(np.float32)
ONE_MM = Preprocessing(spacing_mm=(1.0, 1.0, 1.0))


def codes(
    *,
    modality: str | None = "MR",
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
    extent: tuple[float, float, float] = (35.0, 50.0, 35.0),
    image: np.ndarray = IMAGE,
) -> list[str]:
    found = violations(CONTRACT, modality=modality, spacing=spacing, extent=extent, image=image)
    return [reason.code for reason in found]


class TestViolations:
    def test_a_scan_as_expected_has_none(self) -> None:
        assert codes() == []

    def test_a_file_that_names_no_modality_is_not_judged_by_it(self) -> None:
        assert codes(modality=None) == []

    def test_another_modality(self) -> None:
        assert codes(modality="CT") == ["modality_unexpected"]

    @pytest.mark.parametrize("spacing", [(0.4, 1, 1), (1, 2.1, 1), (1, 1, 6)])
    def test_a_spacing_outside_the_range_on_any_axis(self, spacing: tuple[float, float, float]) -> None:
        assert codes(spacing=spacing) == ["spacing_out_of_range"]

    @pytest.mark.parametrize("extent", [(200, 50, 35), (35, 39, 35), (35, 50, 51)])
    def test_an_extent_outside_the_range_on_any_axis(self, extent: tuple[float, float, float]) -> None:
        assert codes(extent=extent) == ["extent_out_of_range"]

    def test_intensities_unlike_those_of_training(self) -> None:
        assert codes(image=IMAGE * 5) == ["intensity_unusual"]
        assert codes(image=np.concatenate([IMAGE, IMAGE])) == []
        assert codes(image=np.concatenate([IMAGE, IMAGE * 5])) == ["intensity_unusual"]

    def test_every_breach_is_told(self) -> None:
        found = codes(modality="CT", spacing=(9, 9, 9), extent=(9, 9, 9), image=IMAGE * 5)
        assert found == ["modality_unexpected", "spacing_out_of_range", "extent_out_of_range", "intensity_unusual"]


class TestFarOutside:
    @pytest.mark.parametrize(("grid", "far"), [((50, 60, 50), False), ((100, 120, 50), False), ((240, 240, 130), True)])
    def test_only_a_scan_of_several_times_the_largest_expected_size(
        self, grid: tuple[int, int, int], far: bool
    ) -> None:
        assert far_outside(CONTRACT, ONE_MM, grid=grid) is far


class TestInputContract:
    def test_says_of_each_structure_what_is_plausible(self) -> None:
        assert CONTRACT.plausible == (Plausible((1.0, 6.0), 0.01), Plausible((2.0, 8.0), 0.02))


class TestStructureNames:
    def test_several_segments_are_judged_together_as_well(self) -> None:
        assert structure_names(["anterior", "posterior"]) == ("anterior", "posterior", "union")

    def test_a_single_segment_is_its_own_union(self) -> None:
        assert structure_names(["hippocampus"]) == ("hippocampus",)

    @pytest.mark.parametrize("names", [["liver", "liver"], ["liver", "union"], ["union"]])
    def test_names_that_cannot_be_told_apart_are_refused(self, names: list[str]) -> None:
        with pytest.raises(ValueError, match="names of their own"):
            structure_names(names)


class TestManifest:
    two = Architecture((Level(3, 3),), channels=6, hidden=8, outputs=2)

    def test_survives_the_way_to_json_and_back(self, make_manifest: Callable[..., Manifest]) -> None:
        for manifest in (make_manifest(), make_manifest(architecture=self.two)):
            assert Manifest.model_validate_json(manifest.to_json()) == manifest

    def test_its_structures_are_its_segments_and_their_union(self, make_manifest: Callable[..., Manifest]) -> None:
        assert make_manifest().structures == ("thing 1",)
        assert make_manifest(architecture=self.two).structures == ("thing 1", "thing 2", "union")

    @pytest.mark.parametrize(
        "path",
        [("contract", "volume_ml"), ("contract", "border_max"), ("calibration", "structures")],
        ids=lambda path: path[1],
    )
    def test_every_structure_must_be_described(
        self, make_manifest: Callable[..., Manifest], path: tuple[str, str]
    ) -> None:
        data = make_manifest(architecture=self.two).model_dump(mode="json")
        data[path[0]][path[1]].pop()
        with pytest.raises(ValueError, match="must be 3"):
            Manifest.model_validate(data)

    def test_a_network_with_more_outputs_than_segments_is_refused(self, make_manifest: Callable[..., Manifest]) -> None:
        with pytest.raises(ValueError, match="segments must be as many"):
            make_manifest(architecture=self.two, segments=make_manifest().segments)

    def test_a_default_ensemble_without_a_line_is_refused(self, make_manifest: Callable[..., Manifest]) -> None:
        data = make_manifest().model_dump(mode="json")
        data["calibration"]["members"] = 11
        with pytest.raises(ValueError, match="must have a line"):
            Manifest.model_validate(data)

    def test_a_line_on_which_dice_rises_with_nqm_is_refused(self, make_manifest: Callable[..., Manifest]) -> None:
        data = make_manifest().model_dump(mode="json")
        data["calibration"]["structures"][0]["lines"][3]["slope"] = 0.1
        with pytest.raises(ValueError, match="must fall as NQM rises"):
            Manifest.model_validate(data)

    def test_a_wrong_parameter_count_is_refused(self, make_manifest: Callable[..., Manifest]) -> None:
        with pytest.raises(ValueError, match="parameter count"):
            make_manifest(parameters=1)

    def test_another_format_is_refused(self, make_manifest: Callable[..., Manifest]) -> None:
        data = make_manifest().model_dump(mode="json")
        with pytest.raises(ValueError, match="format"):
            Manifest.model_validate(data | {"format": 1})

    def test_its_validation_scans_are_those_held_out_from_its_own_weights(
        self, make_manifest: Callable[..., Manifest]
    ) -> None:
        record = make_manifest().training
        for folds, held_out in (((("a", "b"), ("c",)), ("a", "b")), ((), ())):
            manifest = make_manifest(training=record.model_copy(update={"folds": folds}))
            assert manifest.validation_scans == held_out

    def test_a_proof_of_low_precision_is_that_of_one_engine(self, make_manifest: Callable[..., Manifest]) -> None:
        proof = LowPrecision(engine="native-bf16", scans=9, dice_mean=0.9995, dice_min=0.99, verdicts_changed=0)
        manifest = make_manifest(low_precision=proof)
        assert manifest.proves("native-bf16")
        assert not manifest.proves("native")
        assert not make_manifest().proves("native-bf16")
