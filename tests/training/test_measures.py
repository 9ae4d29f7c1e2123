import numpy as np
import pytest

from training.measures import Scored, aurc, auroc, eaurc, fpr95, mae, measure, pearson, spearman

DICE = np.array([0.9, 0.85, 0.5, 0.2])


def scored(score: list[float], predicted: list[float] | None = None) -> Scored:
    given = None if predicted is None else np.array(predicted)
    return Scored(np.arange(4), DICE, np.array(score), given)


class TestDetection:
    def test_a_perfect_order_finds_every_failure_first(self) -> None:
        one = scored([4, 3, 2, 1])
        assert (auroc(one, 0.8), fpr95(one, 0.8), eaurc(one, 0.8)) == (1.0, 0.0, 0.0)

    def test_a_reversed_order_finds_them_last(self) -> None:
        one = scored([1, 2, 3, 4])
        assert (auroc(one, 0.8), fpr95(one, 0.8)) == (0.0, 1.0)

    def test_is_undefined_without_both_kinds_of_mask(self) -> None:
        assert auroc(scored([1, 2, 3, 4]), 0.1) is None
        assert fpr95(scored([1, 2, 3, 4]), 0.95) is None


class TestRiskCoverage:
    def test_worked_by_hand(self) -> None:
        # best first: risks 0.1, 0.15, 0.5, 0.8 -> running means 0.1, 0.125, 0.25, 0.3875
        assert aurc(scored([4, 3, 2, 1]), 0.8) == pytest.approx((0.1 + 0.125 + 0.25 + 0.3875) / 4)

    def test_the_excess_is_what_a_worse_order_costs(self) -> None:
        # the two good ones swapped: running means 0.15, 0.125, ...
        assert eaurc(scored([3, 4, 2, 1]), 0.8) == pytest.approx(0.05 / 4)


class TestPrediction:
    def test_the_error_is_absolute(self) -> None:
        assert mae(scored([4, 3, 2, 1], [0.8, 0.95, 0.5, 0.2]), 0.8) == pytest.approx(0.05)

    def test_a_score_that_predicts_nothing_has_no_error(self) -> None:
        assert mae(scored([4, 3, 2, 1]), 0.8) is None

    def test_ranks_see_what_a_line_does_not(self) -> None:
        bent = scored([1000, 3, 2, 1])
        assert spearman(bent, 0.8) == pytest.approx(1.0)
        assert pearson(bent, 0.8) < 0.7


class TestIntervals:
    def test_hold_the_value_and_narrow_with_more_scans(self) -> None:
        widths = []
        for scans in (20, 200):
            rng = np.random.default_rng(0)
            dice = rng.uniform(0.5, 1.0, scans)
            figure = measure(Scored(np.arange(scans), dice, dice + rng.normal(0, 0.2, scans)), min_dice=0.8)["auroc"]
            assert figure.value is not None
            assert figure.low is not None
            assert figure.high is not None
            assert figure.low <= figure.value <= figure.high
            widths.append(figure.high - figure.low)
        assert widths[1] < widths[0] / 2

    def test_draw_whole_scans(self) -> None:
        """Copies of a scan's masks tell nothing new: the interval is that of the scans."""
        rng = np.random.default_rng(0)
        dice = rng.uniform(0.5, 1.0, 30)
        score = dice + rng.normal(0, 0.2, 30)
        single = measure(Scored(np.arange(30), dice, score), min_dice=0.8)["aurc"]
        tenfold = measure(Scored(np.repeat(np.arange(30), 10), np.repeat(dice, 10), np.repeat(score, 10)), min_dice=0.8)
        assert tenfold["aurc"].low == pytest.approx(single.low, abs=0.01)
        assert tenfold["aurc"].high == pytest.approx(single.high, abs=0.01)
