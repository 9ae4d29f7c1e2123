import itertools
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.orientations import aff2axcodes

from imaging.grid import model_grid_shape, to_model_grid, znormalise
from imaging.volume import Volume

ORIENTATIONS = [
    (permutation, signs)
    for permutation in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]


def affine_of(permutation: tuple[int, ...], signs: tuple[int, ...], spacing: tuple[float, ...]) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (world, sign, step) in enumerate(zip(permutation, signs, spacing, strict=True)):
        affine[world, axis] = sign * step
    affine[:3, 3] = (3.0, -7.0, 11.0)
    return affine


def blob(shape: tuple[int, ...], affine: np.ndarray, centre: np.ndarray, sigma: float = 4.0) -> np.ndarray:
    grid = np.moveaxis(np.indices(shape), 0, -1)
    millimetres = grid @ affine[:3, :3].T + affine[:3, 3]
    result: np.ndarray = np.exp(-((millimetres - centre) ** 2).sum(-1) / (2 * sigma**2)).astype(np.float32)
    return result


class TestReorientation:
    @pytest.mark.parametrize(("permutation", "signs"), ORIENTATIONS)
    def test_there_and_back_is_exact_in_every_orientation(
        self, permutation: tuple[int, ...], signs: tuple[int, ...]
    ) -> None:
        affine = affine_of(permutation, signs, (1.0, 2.0, 3.0))
        array = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)
        scan = to_model_grid(Volume(array, affine), spacing=None)
        np.testing.assert_array_equal(scan.to_native(scan.array), array)
        assert scan.spacing == tuple((1.0, 2.0, 3.0)[permutation.index(world)] for world in range(3))

    def test_a_map_that_needs_no_resampling_is_not_copied(self) -> None:
        scan = to_model_grid(Volume(np.zeros((4, 5, 6), np.float32), np.diag([-1.0, 1.0, -1.0, 1.0])), spacing=None)
        array = np.zeros((4, 5, 6), np.float32)
        assert np.shares_memory(scan.to_native(array), array)

    def test_the_model_sees_axes_that_run_right_front_and_up(self) -> None:
        affine = affine_of((1, 2, 0), (1, -1, -1), (1.0, 1.0, 1.0))
        assert aff2axcodes(affine) == ("A", "I", "L")
        array = np.zeros((4, 5, 6), np.float32)
        array[3, 0, 0] = 1.0  # foremost, topmost, rightmost
        scan = to_model_grid(Volume(array, affine), spacing=None)
        assert scan.array.shape == (6, 4, 5)
        assert scan.array[5, 3, 4] == 1.0

    def test_an_oblique_scan_takes_the_closest_axes(self) -> None:
        turn = np.deg2rad(20)
        affine = np.eye(4)
        affine[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
        array = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)
        np.testing.assert_array_equal(to_model_grid(Volume(array, affine), spacing=None).array, array)


class TestResampling:
    @pytest.mark.parametrize("spacing", [(0.8, 1.1, 2.3), (0.5, 0.5, 3.0), (2.0, 1.0, 0.7)])
    def test_a_structure_stays_where_it_was_in_millimetres(self, spacing: tuple[float, float, float]) -> None:
        affine = affine_of((2, 0, 1), (-1, 1, -1), spacing)
        shape = tuple(round(48 / step) for step in spacing)
        middle = affine @ [*(np.array(shape) / 2), 1]
        array = blob(shape, affine, middle[:3] + np.array([2.0, -1.5, 3.0]))
        scan = to_model_grid(Volume(array, affine), spacing=(1.0, 1.0, 1.0))
        back = scan.to_native(scan.array)
        grid = np.indices(shape)
        before, after = ((grid * one).sum((1, 2, 3)) / one.sum() for one in (array, back))
        assert back.shape == array.shape
        np.testing.assert_allclose(after, before, atol=0.05)

    @given(st.tuples(*[st.floats(0.6, 2.5)] * 3), st.sampled_from(ORIENTATIONS), st.tuples(*[st.floats(-4.0, 4.0)] * 3))
    @settings(max_examples=30, deadline=None)
    def test_a_structure_lies_on_the_models_grid_where_it_lies_in_the_scan(
        self, spacing: tuple[float, float, float], orientation: Any, shift: tuple[float, ...]
    ) -> None:
        affine = affine_of(orientation[0], orientation[1], spacing)
        shape = tuple(round(40 / step) for step in spacing)
        middle = (affine @ [*((np.array(shape) - 1) / 2), 1])[:3]  # of the box, which both grids share
        scan = to_model_grid(Volume(blob(shape, affine, middle + shift, 3.0), affine), spacing=(1.0, 1.0, 1.0))
        size = np.array(scan.array.shape)
        centroid = (np.indices(scan.array.shape) * scan.array).sum((1, 2, 3)) / scan.array.sum()
        from_middle = (centroid - (size - 1) / 2) * np.array(scan.extent) / size
        np.testing.assert_allclose(from_middle, shift, atol=0.05)

    def test_has_the_spacing_asked_for(self) -> None:
        volume = Volume(np.zeros((20, 30, 10), np.float32), np.diag([0.5, 1.0, 4.0, 1.0]))
        scan = to_model_grid(volume, spacing=(1.0, 1.0, 1.0))
        assert scan.array.shape == (10, 30, 40) == model_grid_shape(volume, (1.0, 1.0, 1.0))
        assert scan.extent == (10.0, 30.0, 40.0)

    def test_a_spacing_within_one_percent_is_left_alone(self) -> None:
        array = np.random.default_rng(0).normal(size=(20, 20, 20)).astype(np.float32)
        scan = to_model_grid(Volume(array, np.diag([1.005, 0.995, 1.0, 1.0])), spacing=(1.0, 1.0, 1.0))
        np.testing.assert_array_equal(scan.array, array)

    def test_fine_stripes_do_not_alias_when_an_axis_is_reduced(self) -> None:
        array = np.zeros((64, 8, 8), np.float32)
        array[::3] = 1.0  # of a period that no two neighbours average away
        scan = to_model_grid(Volume(array, np.diag([0.25, 1.0, 1.0, 1.0])), spacing=(1.0, 1.0, 1.0))
        assert scan.array[2:-2].std() < 0.02

    def test_a_map_of_another_grid_is_refused(self) -> None:
        scan = to_model_grid(Volume(np.zeros((4, 4, 4), np.float32), np.eye(4)), spacing=None)
        with pytest.raises(ValueError, match="model's grid"):
            scan.to_native(np.zeros((4, 4, 5), np.float32))


class TestZnormalise:
    def test_gives_mean_zero_and_deviation_one(self) -> None:
        array = np.random.default_rng(0).normal(500, 30, (9, 9, 9)).astype(np.float32)
        result = znormalise(array)
        assert result.mean() == pytest.approx(0, abs=1e-5)
        assert result.std() == pytest.approx(1, abs=1e-5)
        assert result.dtype == np.float32

    @pytest.mark.parametrize("value", [0.0, 7.0, 1e30])
    def test_a_constant_image_becomes_zeros(self, value: float) -> None:
        assert not znormalise(np.full((3, 3, 3), value, np.float32)).any()

    def test_a_large_image_costs_little_beside_the_result(self) -> None:
        array = np.random.default_rng(0).normal(500, 30, (128, 128, 64)).astype(np.float32)
        tracemalloc.start()
        try:
            result = znormalise(array)
            assert tracemalloc.get_traced_memory()[1] < 1.2 * result.nbytes
        finally:
            tracemalloc.stop()
        values = array.astype(np.float64)
        np.testing.assert_allclose(result, (values - values.mean()) / values.std(), rtol=1e-6, atol=1e-7)
