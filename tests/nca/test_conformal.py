from collections.abc import Sequence

import numpy as np
import pytest

from nca.conformal import Calibrated

MIN_DICE = 0.6
ALPHA = 0.1
DRAWS = 60
"""Simulated calibrations."""


def drawn(seed: int, *, scans: int, each: int = 5) -> Calibrated:
    """Scans that are good or bad as a whole, each under several conditions, with a predicted Dice that is near."""
    rng = np.random.default_rng(seed)
    dice = np.clip(rng.beta(4, 1.5, scans)[:, None] + rng.normal(0, 0.1, (scans, each)), 0, 1)
    predicted = np.clip(dice + rng.normal(0, 0.08, (scans, each)), 0, 1)
    scan = np.repeat(np.arange(scans), each)
    return Calibrated(scan, predicted.ravel(), dice.ravel(), np.zeros(scans * each, bool))


def repeated(
    outcomes: Sequence[tuple[float, float]], *, scans: int, refused: Sequence[bool] | None = None
) -> Calibrated:
    """The same (predicted, true) Dice on every scan."""
    predicted, dice = np.array(outcomes).T
    flags = np.zeros(len(outcomes), bool) if refused is None else np.array(refused)
    return Calibrated(
        np.repeat(np.arange(scans), len(outcomes)),
        np.tile(predicted, scans),
        np.tile(dice, scans),
        np.tile(flags, scans),
    )


@pytest.fixture(scope="module")
def population() -> Calibrated:
    """So many scans that its shares are those of the law they are drawn from."""
    return drawn(10**6, scans=40_000)


def risks(outcomes: Calibrated, threshold: float) -> tuple[float, float]:
    """The share of failures among the accepted: each scan counting once, and each outcome counting once."""
    accepted = outcomes.predicted >= threshold
    counts = np.bincount(outcomes.scan, weights=accepted)
    failed = np.bincount(outcomes.scan, weights=accepted & (outcomes.dice < MIN_DICE))
    return float(np.mean(failed[counts > 0] / counts[counts > 0])), float(failed.sum() / counts.sum())


class TestThreshold:
    def test_the_risk_it_states_holds_in_nine_of_ten_calibrations(self, population: Calibrated) -> None:
        broken = found = 0
        for seed in range(DRAWS):
            threshold = drawn(seed, scans=120).threshold(min_dice=MIN_DICE, alpha=ALPHA)
            if threshold is not None:
                found += 1
                broken += max(risks(population, threshold)) > ALPHA
        assert found >= 0.9 * DRAWS  # a gate that never opens would be valid too
        assert broken <= 0.1 * DRAWS

    def test_a_tighter_risk_or_a_higher_limit_asks_for_more(self) -> None:
        outcomes = drawn(0, scans=400)
        easy, strict, higher = (
            outcomes.threshold(min_dice=min_dice, alpha=alpha)
            for min_dice, alpha in ((MIN_DICE, ALPHA), (MIN_DICE, 0.05), (0.7, ALPHA))
        )
        assert easy is not None
        assert strict is not None
        assert higher is not None
        assert easy < min(strict, higher)

    def test_with_many_scans_it_accepts_nearly_all_that_the_risk_allows(self, population: Calibrated) -> None:
        threshold = drawn(0, scans=5000).threshold(min_dice=MIN_DICE, alpha=ALPHA)
        assert threshold is not None
        assert 0.8 * ALPHA < risks(population, threshold)[0] <= ALPHA

    @pytest.mark.parametrize(("scans", "known"), [(20, False), (100, True)])
    def test_needs_enough_scans_even_where_none_failed(self, scans: int, known: bool) -> None:
        outcomes = repeated([(0.9, 0.95), (0.95, 0.95)], scans=scans)
        assert (outcomes.threshold(min_dice=0.8, alpha=0.05) is not None) is known

    def test_many_outcomes_of_few_scans_do_not_make_up_for_scans(self) -> None:
        outcomes = repeated([(0.9, 0.95), (0.95, 0.95)] * 50, scans=20)
        assert outcomes.threshold(min_dice=0.8, alpha=0.05) is None

    def test_is_not_known_where_the_best_predicted_fail(self) -> None:
        assert repeated([(0.9, 0.3), (0.2, 0.9)], scans=200).threshold(min_dice=0.8, alpha=0.05) is None

    def test_lies_above_what_fails(self) -> None:
        outcomes = repeated([(0.9, 0.95), (0.8, 0.95), (0.5, 0.3)], scans=200)
        threshold = outcomes.threshold(min_dice=0.8, alpha=0.05)
        assert threshold is not None
        assert 0.5 < threshold <= 0.8

    def test_a_failure_that_is_refused_anyhow_does_not_count(self) -> None:
        outcomes = [(0.95, 0.2), (0.9, 0.95), (0.85, 0.95)]
        known = repeated(outcomes, scans=200, refused=(True, False, False))
        assert known.threshold(min_dice=0.8, alpha=0.05) == pytest.approx(0.85)
        unknown = repeated(outcomes, scans=200, refused=(False, False, False))
        assert unknown.threshold(min_dice=0.8, alpha=0.05) is None

    def test_is_not_known_where_all_are_refused(self) -> None:
        outcomes = repeated([(0.9, 0.95), (0.8, 0.95)], scans=200, refused=(True, True))
        assert outcomes.threshold(min_dice=0.8, alpha=0.05) is None


class TestInterval:
    def test_covers_nine_in_ten_of_fresh_outcomes(self, population: Calibrated) -> None:
        shares = []
        for seed in range(5):
            outcomes = drawn(seed, scans=400)
            chosen = np.random.default_rng(seed).choice(len(population.dice), 1000, replace=False)
            inside = [
                low <= population.dice[one] <= high
                for one in chosen
                for low, high in [outcomes.interval(float(population.predicted[one]))]
            ]
            shares.append(np.mean(inside))
        assert np.mean(shares) == pytest.approx(0.9, abs=0.02)

    @pytest.mark.parametrize(
        ("each", "low", "high"),
        [(29, 1, 29), (39, 2, 38), (50, 2, 49)],
        ids=["1.5 and 28.5 of 30", "2 and 38 of 40", "2.55 and 48.45 of 51"],
    )
    def test_ranks_within_the_bin_worked_by_hand(self, each: int, low: int, high: int) -> None:
        """The 5 % and 95 % points of n + 1 ranks, both rounded outwards; eight bins."""
        dice = np.linspace(0.0, 1.0, 8 * each)
        outcomes = Calibrated(np.arange(8 * each), dice.copy(), dice, np.zeros(8 * each, bool))
        assert outcomes.interval(0.001) == (dice[low - 1], dice[high - 1])
        assert outcomes.interval(0.999) == (dice[-each:][low - 1], dice[-each:][high - 1])

    def test_where_nothing_similar_was_seen_it_says_nothing(self) -> None:
        assert repeated([(0.5, 0.4), (0.9, 0.95)], scans=30).interval(0.95) == (0.0, 1.0)

    def test_few_outcomes_leave_it_open(self) -> None:
        assert repeated([(0.5, 0.4)], scans=5).interval(0.5) == (0.0, 1.0)

    def test_a_smaller_coverage_is_narrower(self) -> None:
        outcomes = drawn(0, scans=400)
        (low, high), (inner_low, inner_high) = (outcomes.interval(0.7, coverage=one) for one in (0.9, 0.5))
        assert low < inner_low < inner_high < high
