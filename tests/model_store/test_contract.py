from collections.abc import Callable

import numpy as np
import pytest

from model_store.contract import QUANTILES, far_outside, violations
from model_store.manifest import InputContract, IntensityQuantiles, Manifest, Preprocessing

CONTRACT = InputContract(
    modalities=("MR",),
    spacing_mm=((0.5, 2.0), (0.5, 2.0), (0.5, 2.0)),
    extent_mm=((30.0, 50.0), (40.0, 60.0), (20.0, 50.0)),
    intensity=IntensityQuantiles(quantiles=QUANTILES, low=(-4.0,) * 7, high=(4.0,) * 7),
    volume_ml=((1.0, 6.0),),
)
IMAGE = np.random.default_rng(0).normal(size=(10, 10, 10)).astype(np.float32)
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

    def test_every_breach_is_told(self) -> None:
        found = codes(modality="CT", spacing=(9, 9, 9), extent=(9, 9, 9), image=IMAGE * 5)
        assert found == ["modality_unexpected", "spacing_out_of_range", "extent_out_of_range", "intensity_unusual"]


class TestFarOutside:
    @pytest.mark.parametrize(("grid", "far"), [((50, 60, 50), False), ((100, 120, 50), False), ((240, 240, 130), True)])
    def test_only_a_scan_of_several_times_the_largest_expected_size(
        self, grid: tuple[int, int, int], far: bool
    ) -> None:
        assert far_outside(CONTRACT, ONE_MM, grid=grid) is far


class TestManifest:
    def test_survives_the_way_to_json_and_back(self, make_manifest: Callable[..., Manifest]) -> None:
        manifest = make_manifest()
        assert Manifest.model_validate_json(manifest.to_json()) == manifest

    def test_a_default_line_that_is_none_of_the_lines_is_refused(self, make_manifest: Callable[..., Manifest]) -> None:
        data = make_manifest().model_dump(mode="json")
        data["calibration"]["slope"] = -0.5
        with pytest.raises(ValueError, match="must be those of its line"):
            Manifest.model_validate(data)

    def test_a_wrong_parameter_count_is_refused(self, make_manifest: Callable[..., Manifest]) -> None:
        with pytest.raises(ValueError, match="parameter count"):
            make_manifest(parameters=1)
