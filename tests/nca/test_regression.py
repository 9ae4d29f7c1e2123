import numpy as np
import pytest

from nca.errors import UncalibratableError
from nca.evidence import Evidence
from nca.regression import Line, Regression, fit_line, fit_regression

LINE = Line(members=10, slope=-1.0, intercept=0.95, residual=0.02, pearson=-0.9, points=50)
REGRESSION = Regression(
    names=("nqm", "stray"),
    low=(0.0, 0.0),
    high=(0.5, 0.4),
    centre=(0.1, 0.1),
    scale=(0.2, 0.1),
    weights=(-0.1, -0.05),
    intercept=0.8,
)


def evidence(**figures: float) -> Evidence:
    names = ("nqm", "log_nqm", "mask_nqm", "disagreement", "entropy", "stray", "border")
    return Evidence(**(dict.fromkeys(names, 0.0) | figures))


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


class TestRegression:
    def test_worked_by_hand(self) -> None:
        # NQM (0.3 - 0.1) / 0.2 = 1, stray (0.3 - 0.1) / 0.1 = 2: 0.8 - 0.1 - 0.1
        assert REGRESSION.predicted_dice(evidence(nqm=0.3, stray=0.3)) == pytest.approx(0.6)

    def test_a_figure_it_does_not_name_has_no_say(self) -> None:
        assert REGRESSION.predicted_dice(evidence(entropy=9.0)) == REGRESSION.predicted_dice(evidence())

    def test_a_figure_beyond_those_of_calibration_counts_as_the_last_of_them(self) -> None:
        assert REGRESSION.predicted_dice(evidence(nqm=7.0, stray=-3.0)) == pytest.approx(
            REGRESSION.predicted_dice(evidence(nqm=0.5, stray=0.0))
        )

    @pytest.mark.parametrize(("intercept", "expected"), [(9.0, 1.0), (-9.0, 0.0)])
    def test_predicted_dice_stays_between_zero_and_one(self, intercept: float, expected: float) -> None:
        steep = Regression(("nqm",), (0.0,), (1.0,), (0.0,), (1.0,), (-1.0,), intercept)
        assert steep.predicted_dice(evidence(nqm=0.5)) == expected


class TestFitRegression:
    names = ("nqm", "stray")
    figures = np.random.default_rng(0).uniform(0.0, 0.4, (40, 2))

    def test_is_nearly_the_plane_the_outcomes_lie_on(self) -> None:
        dices = 0.95 - 0.8 * self.figures[:, 0] - 0.3 * self.figures[:, 1]
        found = fit_regression(self.names, self.figures, dices)
        for row, dice in zip(self.figures, dices, strict=True):
            assert found.predicted_dice(evidence(nqm=row[0], stray=row[1])) == pytest.approx(dice, abs=0.005)

    def test_the_ridge_pulls_to_the_mean_and_not_beyond(self) -> None:
        dices = 0.95 - 0.8 * self.figures[:, 0]
        found = fit_regression(self.names, self.figures, dices)
        exact = -0.8 * self.figures[:, 0].std()
        assert exact < found.weights[0] < 0.98 * exact
        assert found.intercept == pytest.approx(dices.mean())

    def test_figures_that_say_the_same_share_their_weight(self) -> None:
        twice = np.repeat(self.figures[:, :1], 2, axis=1)
        found = fit_regression(self.names, twice, 0.9 - twice[:, 0])
        assert found.weights[0] == pytest.approx(found.weights[1])
        assert found.weights[0] < 0

    def test_a_figure_that_never_varied_has_no_weight(self) -> None:
        figures = np.column_stack([self.figures[:, 0], np.zeros(40)])
        found = fit_regression(self.names, figures, 0.9 - figures[:, 0])
        assert found.weights[1] == pytest.approx(0.0)
        assert found.predicted_dice(evidence(nqm=0.2, stray=0.9)) == found.predicted_dice(evidence(nqm=0.2))

    def test_remembers_the_range_it_saw(self) -> None:
        found = fit_regression(self.names, self.figures, self.figures[:, 0])
        assert found.low == tuple(self.figures.min(0))
        assert found.high == tuple(self.figures.max(0))

    @pytest.mark.parametrize(("count", "spread"), [(9, 1.0), (12, 0.0)], ids=["too few", "all of the same Dice"])
    def test_refuses_outcomes_that_say_too_little(self, count: int, spread: float) -> None:
        with pytest.raises(UncalibratableError):
            fit_regression(self.names, self.figures[:count], spread * np.linspace(0.0, 1.0, count))
