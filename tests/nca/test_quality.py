import numpy as np
import pytest

from nca.errors import UncalibratableError
from nca.quality import Evidence, Line, Reason, dice, fit_line, judge, nqm, pairwise_dice

LINE = Line(members=10, slope=-1.0, intercept=0.95, residual=0.02, pearson=-0.9, points=50)
SMALL = Line(members=4, slope=-1.0, intercept=0.90, residual=0.03, pearson=-0.8, points=50)
GOOD = Evidence(nqm=0.05, finite=True, volume_ml=3.0, members=10)


def packed(*masks: list[int]) -> list[np.ndarray]:
    return [np.packbits(np.array(mask, dtype=bool)) for mask in masks]


class TestNqm:
    def test_is_summed_deviation_over_summed_mean(self) -> None:
        members = np.array([[0.0, 1.0, 0.5], [1.0, 1.0, 0.5]])  # two members, three voxels
        # mean 0.5, 1, 0.5; population deviation 0.5, 0, 0 -> 0.5 / 2
        assert nqm(members.mean(0), members.std(0)) == pytest.approx(0.25)

    def test_is_undefined_for_an_empty_mean(self) -> None:
        assert nqm(np.zeros(3), np.zeros(3)) is None


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


class TestFitLine:
    def test_recovers_an_exact_line(self) -> None:
        x = np.linspace(0.02, 0.5, 12)
        line = fit_line(list(x), list(0.95 - 1.2 * x), members=10)
        assert (line.slope, line.intercept) == (pytest.approx(-1.2), pytest.approx(0.95))
        assert line.residual == pytest.approx(0.0, abs=1e-9)
        assert line.pearson == pytest.approx(-1.0)
        assert (line.members, line.points) == (10, 12)

    def test_residual_is_the_unbiased_spread_about_the_line(self) -> None:
        x = [0.0, 1.0] * 5
        y = [0.9, 0.5, 0.7, 0.3, 0.8, 0.4, 0.8, 0.4, 0.8, 0.4]  # means 0.8 and 0.4; squares sum to 4 * 0.01
        assert fit_line(x, y, members=2).residual == pytest.approx(np.sqrt(0.04 / 8))

    @pytest.mark.parametrize(
        ("x", "y"),
        [
            (list(range(9)), [-float(i) for i in range(9)]),
            ([float(i) for i in range(12)], [float(i) for i in range(12)]),
            ([1.0] * 12, [float(i) for i in range(12)]),
        ],
        ids=["too few", "rising", "no spread"],
    )
    def test_refuses_points_without_a_falling_line(self, x: list[float], y: list[float]) -> None:
        with pytest.raises(UncalibratableError):
            fit_line(x, y, members=10)


class TestLine:
    def test_threshold_is_where_the_line_meets_the_limit(self) -> None:
        assert LINE.threshold(0.8) == pytest.approx(0.15)
        assert LINE.predicted_dice(LINE.threshold(0.8)) == pytest.approx(0.8)

    def test_predicted_dice_stays_between_zero_and_one(self) -> None:
        assert LINE.predicted_dice(5.0) == 0.0
        assert Line(10, -1.0, 1.2, 0.0, -1.0, 10).predicted_dice(0.0) == 1.0


class TestJudge:
    def ask(
        self,
        evidence: Evidence = GOOD,
        *,
        min_dice: float = 0.8,
        violations: tuple[Reason, ...] = (),
        lines: tuple[Line, ...] = (SMALL, LINE),
    ) -> tuple[str, list[str], float | None]:
        judgement = judge(evidence, lines=lines, volume_ml_range=(1.0, 6.0), min_dice=min_dice, violations=violations)
        return judgement.verdict, [reason.code for reason in judgement.reasons], judgement.predicted_dice

    def test_accepts_where_nothing_speaks_against_it(self) -> None:
        assert self.ask() == ("accept", [], pytest.approx(0.90))

    def test_flags_an_nqm_above_the_threshold(self) -> None:
        evidence = Evidence(nqm=0.151, finite=True, volume_ml=3.0, members=10)
        assert self.ask(evidence) == ("flag", ["nqm_above_threshold"], pytest.approx(0.799))

    def test_a_stricter_limit_flags_what_was_accepted(self) -> None:
        assert self.ask(min_dice=0.91)[:2] == ("flag", ["nqm_above_threshold"])

    def test_an_undefined_nqm_is_flagged_with_its_own_reason(self) -> None:
        evidence = Evidence(nqm=None, finite=True, volume_ml=0.0, members=10)
        assert self.ask(evidence) == ("flag", ["nqm_undefined", "empty_mask"], None)

    def test_an_empty_mask_is_flagged_however_sure_the_members_are(self) -> None:
        evidence = Evidence(nqm=0.0, finite=True, volume_ml=0.0, members=10)
        assert self.ask(evidence)[:2] == ("flag", ["empty_mask"])

    @pytest.mark.parametrize("volume", [0.99, 6.01])
    def test_an_implausible_volume_is_flagged(self, volume: float) -> None:
        evidence = Evidence(nqm=0.05, finite=True, volume_ml=volume, members=10)
        assert self.ask(evidence)[:2] == ("flag", ["volume_implausible"])

    def test_values_that_are_not_finite_are_flagged(self) -> None:
        evidence = Evidence(nqm=None, finite=False, volume_ml=3.0, members=10)
        assert self.ask(evidence)[:2] == ("flag", ["not_finite"])

    def test_a_nan_nqm_is_never_accepted(self) -> None:
        evidence = Evidence(nqm=float("nan"), finite=True, volume_ml=3.0, members=10)
        assert self.ask(evidence)[0] == "flag"

    def test_a_breach_of_the_input_contract_is_flagged(self) -> None:
        breach = Reason("extent_out_of_range", "too large")
        assert self.ask(violations=(breach,))[:2] == ("flag", ["extent_out_of_range"])

    def test_a_single_member_has_no_nqm_to_trust(self) -> None:
        evidence = Evidence(nqm=0.0, finite=True, volume_ml=3.0, members=1)
        assert self.ask(evidence)[:2] == ("flag", ["ensemble_too_small"])

    @pytest.mark.parametrize(("members", "predicted"), [(4, 0.85), (9, 0.85), (10, 0.90), (30, 0.90)])
    def test_uses_the_line_of_the_largest_ensemble_not_above_its_own(self, members: int, predicted: float) -> None:
        evidence = Evidence(nqm=0.05, finite=True, volume_ml=3.0, members=members)
        assert self.ask(evidence)[2] == pytest.approx(predicted)
