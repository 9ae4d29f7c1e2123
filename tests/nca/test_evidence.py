import numpy as np
import pytest

from nca.evidence import Evidence, on_border, stray


def box(*slices: slice, shape: tuple[int, int, int] = (8, 9, 10)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[slices] = True
    return mask


class TestEvidence:
    def test_gives_its_figures_by_name_in_the_order_asked_for(self) -> None:
        evidence = Evidence(0.1, -2.2, 0.2, 0.3, 0.4, 0.5, 0.6)
        assert evidence.vector(("stray", "nqm", "disagreement")).tolist() == [0.5, 0.1, 0.3]


class TestOnBorder:
    def test_a_mask_within_has_nothing_on_the_border(self) -> None:
        assert on_border(box(slice(1, -1), slice(1, -1), slice(1, -1))) == 0.0

    @pytest.mark.parametrize("axis", [0, 1, 2])
    @pytest.mark.parametrize("end", [0, -1])
    def test_counts_each_of_the_six_faces(self, axis: int, end: int) -> None:
        mask = np.moveaxis(box(slice(2, 6), slice(2, 6), slice(2, 6), shape=(8, 8, 8)), axis, 0)
        mask = np.roll(mask, -2 if end == 0 else 2, axis=0)  # 4 layers, of which one lies on the face
        assert on_border(np.moveaxis(mask, 0, axis)) == pytest.approx(0.25)

    def test_an_empty_mask_has_no_share(self) -> None:
        assert on_border(np.zeros((4, 4, 4), bool)) == 0.0

    def test_a_grid_that_is_all_border(self) -> None:
        assert on_border(np.ones((2, 5, 5), bool)) == 1.0


class TestStray:
    def test_one_part_has_nothing_astray(self) -> None:
        assert stray(box(slice(1, 4), slice(1, 4), slice(1, 4))) == 0.0

    def test_is_the_share_outside_the_largest_part(self) -> None:
        mask = box(slice(1, 4), slice(1, 3), slice(1, 2))  # 6 voxels
        mask[6, 6, 6:8] = True
        mask[0, 8, 9] = True
        assert stray(mask) == pytest.approx(3 / 9)

    def test_parts_that_touch_by_an_edge_are_two(self) -> None:
        mask = np.zeros((4, 4, 4), bool)
        mask[1, 1, 1:3] = True
        mask[2, 2, 1] = True
        assert stray(mask) == pytest.approx(1 / 3)

    def test_reads_a_mask_in_any_memory_order(self) -> None:
        mask = box(slice(1, 4), slice(1, 3), slice(1, 2))
        mask[6, 6, 6] = True
        assert stray(np.asfortranarray(mask)) == stray(mask) == pytest.approx(1 / 7)
