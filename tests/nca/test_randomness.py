import numpy as np
import pytest

from nca.randomness import Firing, draws, fire_mask, mix, stream_key, voxel_index

GRID = (20, 30, 25)
PINNED = [2645268747, 3054406972, 1870578689, 4247243756]


class TestMix:
    def test_is_a_bijection_on_a_sample(self) -> None:
        values = {mix(i * 65537) for i in range(5000)}
        assert len(values) == 5000

    def test_scalar_and_array_agree(self) -> None:
        key = stream_key(seed=7, member=1, level=0, step=2)
        index = voxel_index(GRID)
        at = (3, 4, 5)
        linear = (3 * 30 + 4) * 25 + 5
        assert int(index[at]) == linear
        assert int(draws(index, key)[at]) == mix(mix(linear ^ key[0]) ^ key[1])


class TestFireMask:
    def test_is_pinned_for_all_time(self) -> None:
        """Another engine, or a refactoring, must fire the very same cells."""
        key = stream_key(seed=2**40 + 5, member=3, level=1, step=7)
        assert draws(voxel_index((1, 1, 4)), key).ravel().tolist() == PINNED

    def test_of_a_tile_is_the_tile_of_the_whole(self) -> None:
        key = stream_key(seed=1, member=0, level=0, step=0)
        whole = fire_mask(voxel_index(GRID), key, 0.5)
        tile = fire_mask(voxel_index(GRID, origin=(4, 7, 2), shape=(5, 6, 9)), key, 0.5)
        np.testing.assert_array_equal(tile, whole[4:9, 7:13, 2:11])

    @pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
    def test_fires_at_its_rate(self, rate: float) -> None:
        mask = fire_mask(voxel_index((64, 64, 64)), stream_key(seed=3, member=2, level=1, step=4), rate)
        assert mask.mean() == pytest.approx(rate, abs=4 * np.sqrt(rate * (1 - rate) / mask.size))

    def test_rate_one_fires_every_cell(self) -> None:
        assert fire_mask(voxel_index(GRID), (1, 2), 1.0).all()

    @pytest.mark.parametrize("field", ["seed", "member", "level", "step"])
    def test_streams_that_differ_in_one_field_are_independent(self, field: str) -> None:
        fields = {"seed": 5, "member": 1, "level": 0, "step": 3}
        index = voxel_index((64, 64, 64))
        one = fire_mask(index, stream_key(**fields), 0.5)
        other = fire_mask(index, stream_key(**{**fields, field: fields[field] + 1}), 0.5)
        assert np.mean(one == other) == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(index.size))

    def test_neighbours_are_independent_along_every_axis(self) -> None:
        mask = fire_mask(voxel_index((64, 64, 64)), stream_key(seed=0, member=0, level=0, step=0), 0.5)
        for axis in range(3):
            agree = np.mean(mask == np.roll(mask, 1, axis=axis))
            assert agree == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(mask.size))

    def test_no_two_streams_of_a_large_run_coincide(self) -> None:
        keys = {
            stream_key(seed=seed, member=member, level=level, step=step)
            for seed in (0, 1, 2**32)
            for member in range(20)
            for level in range(3)
            for step in range(40)
        }
        assert len(keys) == 3 * 20 * 3 * 40


class TestFiring:
    FIRING = Firing(seed=(5 << 32) | 7, members=(0, 3, 19), rate=0.3)

    def test_keys_are_those_of_each_step_and_member(self) -> None:
        keys = self.FIRING.keys(2, 40)
        assert keys.shape == (40, 3, 2)
        for step in (0, 1, 39):
            for at, member in enumerate(self.FIRING.members):
                expected = stream_key(seed=self.FIRING.seed, member=member, level=2, step=step)
                assert tuple(keys[step, at].tolist()) == expected

    def test_every_sample_of_the_mask_is_its_members(self) -> None:
        mask = self.FIRING.mask(1, 4, GRID)
        key = stream_key(seed=self.FIRING.seed, member=19, level=1, step=4)
        assert mask.shape == (3, *GRID)
        np.testing.assert_array_equal(mask[2], fire_mask(voxel_index(GRID), key, 0.3))
