from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from model_store.drift import JOBS_MIN, compare, ks_limit, ks_statistic

RNG = np.random.default_rng(20261125)
REFERENCE = {name: RNG.standard_normal(145).tolist() for name in ("nqm", "volume_ml", "roughness_x", "intensity_50")}


def window(jobs: int, shift: float = 0.0) -> list[dict[str, float]]:
    return [
        {name: float(value) for name, value in zip(REFERENCE, row, strict=True)}
        for row in RNG.standard_normal((jobs, len(REFERENCE))) + shift
    ]


class TestStatistic:
    @pytest.mark.parametrize("digits", [0, 1, 8])
    def test_is_scipys_with_ties_and_without(self, digits: int) -> None:
        one, other = (np.sort(np.round(RNG.standard_normal(size), digits)) for size in (50, 145))
        assert ks_statistic(one, other) == pytest.approx(stats.ks_2samp(one, other).statistic)

    def test_undefined_values_count_as_the_largest(self) -> None:
        assert ks_statistic(np.array([1.0, math.inf]), np.array([1.0, 2.0])) == pytest.approx(0.5)


class TestLimit:
    @pytest.mark.parametrize("jobs", [JOBS_MIN, 25, 50, 200])
    @pytest.mark.parametrize("scans", [12, 37, 145, 400])
    @pytest.mark.parametrize("alpha", [0.05, 0.001, 0.001 / 16])
    def test_is_never_reached_more_often_than_promised(self, jobs: int, scans: int, alpha: float) -> None:
        """The exact distribution (scipy) at the smallest distance that these sizes have from the limit on."""
        step = math.lcm(jobs, scans)
        distance = math.ceil(ks_limit(jobs, scans, alpha=alpha) * step - 1e-9) / step
        if distance > 1.0:
            return  # no distance is an alarm
        assert exact_chance(jobs, scans, distance) <= alpha

    def test_larger_samples_tell_smaller_differences(self) -> None:
        limits = [ks_limit(jobs, 145, alpha=0.001) for jobs in (10, 25, 50, 100)]
        assert limits == sorted(limits, reverse=True)


def exact_chance(one: int, other: int, distance: float) -> float:
    """P(D >= distance) under no difference, by counting lattice paths that stay strictly within."""
    inside = [1.0 if j / other < distance - 1e-12 else 0.0 for j in range(other + 1)]
    for j in range(1, other + 1):
        inside[j] *= inside[j - 1]
    for i in range(1, one + 1):
        for j in range(other + 1):
            within = abs(i / one - j / other) < distance - 1e-12
            before = inside[j - 1] if j else 0.0
            inside[j] = (inside[j] * i / (i + j) + before * j / (i + j)) if within else 0.0
    return 1.0 - inside[other]


class TestCompare:
    def test_nothing_is_said_of_a_few_jobs(self) -> None:
        assert compare(window(JOBS_MIN - 1, 9.0), REFERENCE, alpha=0.001) == ()

    def test_what_shifted_alarms_with_both_medians(self) -> None:
        for one in compare(window(50, 1.5), REFERENCE, alpha=0.001):
            assert one.alarm
            assert one.median is not None
            assert one.reference_median is not None
            assert one.median - one.reference_median == pytest.approx(1.5, abs=0.7)

    def test_any_false_alarm_is_as_rare_as_asked(self) -> None:
        """Over references drawn anew and signals without any dependence: the most alarms that are possible."""
        alpha, hits, rounds = 0.2, 0, 400
        for _ in range(rounds):
            reference = {name: RNG.random(60).tolist() for name in REFERENCE}
            seen = [dict(zip(REFERENCE, row, strict=True)) for row in RNG.random((50, len(REFERENCE))).tolist()]
            hits += any(one.alarm for one in compare(seen, reference, alpha=alpha))
        assert hits / rounds < alpha + 3 * math.sqrt(alpha * (1 - alpha) / rounds)
        assert hits > 0

    def test_a_signal_that_most_jobs_lack_is_left_out(self) -> None:
        jobs = window(50)
        for one in jobs[JOBS_MIN - 1 :]:
            del one["nqm"]
        assert [one.signal for one in compare(jobs, REFERENCE, alpha=0.001)] == [*REFERENCE][1:]

    def test_a_median_that_is_undefined_is_none(self) -> None:
        jobs = [one | {"nqm": math.inf} for one in window(20)]
        (nqm, *_) = compare(jobs, REFERENCE, alpha=0.001)
        assert (nqm.median, nqm.alarm, nqm.ks) == (None, True, 1.0)

    def test_constant_values_that_agree_do_not_alarm(self) -> None:
        (one,) = compare([{"spacing_x": 1.0}] * 50, {"spacing_x": [1.0] * 145}, alpha=0.001)
        assert (one.ks, one.alarm) == (0.0, False)
