from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage

from model_store.signals import VOXELS_MAX, input_signals, output_signals

ISOTROPIC = (1.0, 1.0, 1.0)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((1, *shape), dtype=np.float32)


class TestInputSignals:
    def test_white_noise_is_as_rough_along_every_axis(self) -> None:
        found = input_signals(noise(40, 40, 40), spacing=ISOTROPIC)
        assert [found[f"roughness_{axis}"] for axis in "xyz"] == pytest.approx([1.0] * 3, abs=0.02)

    @pytest.mark.parametrize("axis", range(3))
    def test_what_is_smooth_along_an_axis_is_told_there(self, axis: int) -> None:
        smooth = ndimage.gaussian_filter1d(noise(40, 40, 40)[0], 3.0, axis=axis)[None]
        found = input_signals(smooth / smooth.std(), spacing=ISOTROPIC)
        rough = [found[f"roughness_{one}"] for one in "xyz"]
        assert rough[axis] < 0.1
        assert min(value for one, value in enumerate(rough) if one != axis) > 0.9

    def test_quantiles_are_those_of_the_intensities(self) -> None:
        image = noise(30, 31, 32)
        found = input_signals(image, spacing=ISOTROPIC)
        assert found["intensity_5"] == pytest.approx(np.quantile(image, 0.05), abs=1e-4)

    def test_a_large_scan_has_nearly_the_same(self) -> None:
        image = noise(130, 130, 130)
        assert image.size > VOXELS_MAX
        found = input_signals(image, spacing=ISOTROPIC)
        assert found["intensity_95"] == pytest.approx(np.quantile(image, 0.95), abs=0.01)

    def test_every_channel_has_figures_of_its_own(self) -> None:
        found = input_signals(np.concatenate([noise(9, 9, 9), 2 * noise(9, 9, 9)]), spacing=ISOTROPIC)
        assert found["intensity_95_1"] == pytest.approx(2 * found["intensity_95"], abs=1e-3)

    def test_spacings_that_differ_by_rounding_are_one(self) -> None:
        one, other = (input_signals(None, spacing=(mm, 1.0, 1.0)) for mm in (0.9375, 0.93751))
        assert one == other == {"spacing_x": 0.94, "spacing_y": 1.0, "spacing_z": 1.0}

    def test_nothing_is_said_that_is_no_number(self) -> None:
        image = noise(8, 8, 8)
        image[0, 0, 0, 0] = np.nan
        assert all(math.isfinite(value) for value in input_signals(image, spacing=ISOTROPIC).values())

    def test_a_scan_of_one_voxel_has_figures(self) -> None:
        assert input_signals(np.zeros((1, 1, 1, 1), np.float32), spacing=ISOTROPIC)["roughness_x"] == 0.0


class TestOutputSignals:
    def test_an_empty_mask_is_worse_than_any(self) -> None:
        assert output_signals(nqm=None, predicted_dice=None, volume_ml=0.0) == {
            "nqm": math.inf,
            "predicted_dice": 0.0,
            "volume_ml": 0.0,
        }
