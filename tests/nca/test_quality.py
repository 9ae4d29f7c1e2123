import numpy as np
import pytest

from nca.quality import SLAB, dice, entropy, mask_nqm, nqm, pairwise_dice


def packed(*masks: list[int]) -> list[np.ndarray]:
    return [np.packbits(np.array(mask, dtype=bool)) for mask in masks]


class TestNqm:
    def test_is_summed_deviation_over_summed_mean(self) -> None:
        members = np.array([[0.0, 1.0, 0.5], [1.0, 1.0, 0.5]])  # two members, three voxels
        # mean 0.5, 1, 0.5; population deviation 0.5, 0, 0 -> 0.5 / 2
        assert nqm(members.mean(0), members.std(0)) == pytest.approx(0.25)

    def test_is_undefined_for_an_empty_mean(self) -> None:
        assert nqm(np.zeros(3), np.zeros(3)) is None


class TestMaskNqm:
    def test_worked_by_hand(self) -> None:
        # shares 1, 1/2, 0 -> deviations 0, 1/2, 0: 0.5 / 1.5
        assert mask_nqm(packed([1, 1, 0], [1, 0, 0])) == pytest.approx(1 / 3)

    def test_is_zero_where_all_members_agree(self) -> None:
        assert mask_nqm(packed([1, 0, 1], [1, 0, 1])) == 0.0

    def test_is_undefined_where_all_are_empty(self) -> None:
        assert mask_nqm(packed([0, 0], [0, 0])) is None

    def test_masks_of_several_slabs_are_counted_whole(self) -> None:
        masks = np.random.default_rng(0).random((3, 2 * SLAB + 13)) < 0.3
        share = masks.mean(0)
        expected = np.sqrt(share * (1 - share)).sum() / share.sum()
        assert mask_nqm([np.packbits(mask) for mask in masks]) == pytest.approx(expected)


class TestEntropy:
    def test_worked_by_hand(self) -> None:
        quarter = -(0.25 * np.log(0.25) + 0.75 * np.log(0.75))
        assert entropy(np.array([0.5, 0.25, 1.0, 0.0])) == pytest.approx((np.log(2) + quarter) / 1.75)

    def test_is_zero_where_nothing_is_in_doubt(self) -> None:
        assert entropy(np.array([1.0, 0.0], np.float32)) == pytest.approx(0.0, abs=1e-9)

    def test_is_undefined_for_an_empty_mean(self) -> None:
        assert entropy(np.zeros(3)) is None

    def test_a_map_of_several_slabs_is_summed_whole(self) -> None:
        mean = np.random.default_rng(0).uniform(0.1, 0.9, 2 * SLAB + 13)
        expected = -(mean * np.log(mean) + (1 - mean) * np.log(1 - mean)).sum() / mean.sum()
        assert entropy(mean) == pytest.approx(expected)


class TestDice:
    def test_worked_by_hand(self) -> None:
        assert dice(np.array([1, 1, 0, 0], bool), np.array([1, 0, 1, 0], bool)) == 0.5

    def test_two_empty_masks_agree(self) -> None:
        assert dice(np.zeros(4, bool), np.zeros(4, bool)) == 1.0

    def test_one_empty_mask_is_zero(self) -> None:
        assert dice(np.zeros(4, bool), np.ones(4, bool)) == 0.0


class TestPairwiseDice:
    def test_worked_by_hand(self) -> None:
        # pairs: (1,2) 2*1/3, (1,3) 2*1/2, (2,3) 2*1/3
        masks = packed([1, 0, 0], [1, 1, 0], [1, 0, 0])
        assert pairwise_dice(masks) == pytest.approx((2 / 3 + 1 + 2 / 3) / 3)

    def test_an_empty_and_a_full_member_disagree(self) -> None:
        assert pairwise_dice(packed([0, 0, 0], [1, 1, 1])) == 0.0

    @pytest.mark.parametrize("masks", [[[1, 0]], [[0, 0], [0, 0]]], ids=["one member", "all empty"])
    def test_is_undefined_without_two_members_or_any_voxel(self, masks: list[list[int]]) -> None:
        assert pairwise_dice(packed(*masks)) is None
