from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from nca.conformal import Calibrated
from nca.gate import Gate, Judgement, Plausible, Policy, Reason, Verdict
from nca.regression import Line, Regression
from training.artefacts import CLEAN, PAPER, Condition
from training.evaluate import (
    ALL_GROUP,
    PAPER_GROUP,
    Judged,
    cross_judged,
    detection,
    detection_table,
    groups,
    judge_all,
)
from training.outcomes import Outcome

MakeOutcome = Callable[..., Outcome]
NQM = Policy(min_dice=0.8, alpha=0.05, rule="nqm")
SPIKE = Condition("spike", 3)


def gate(threshold: float) -> Gate:
    """Accepts by the rule "nqm" up to this NQM."""
    line = Line(members=3, slope=-1.0, intercept=0.8 + threshold, residual=0.0, pearson=-1.0, points=10)
    regression = Regression((), (), (), (), (), (), 0.5)
    calibrated = Calibrated(np.zeros(1, int), np.ones(1), np.ones(1), np.zeros(1, bool))
    return Gate([line], regression, 3, calibrated, Plausible((0.0, 9.0), 1.0))


class TestJudgeAll:
    def test_only_whole_ensembles_are_judged(self, make_outcome: MakeOutcome) -> None:
        outcomes = [make_outcome(members=members) for members in (1, 2, 3)]
        assert [one.outcome.observed.members for one in judge_all(outcomes, [gate(0.1)], NQM)] == [3]

    def test_every_structure_has_its_own_gate(self, make_outcome: MakeOutcome) -> None:
        outcomes = [make_outcome(nqm=0.2, structure=structure) for structure in (0, 1, 0)]
        assert [one.flagged for one in judge_all(outcomes, [gate(0.1), gate(0.3)], NQM)] == [True, False, True]

    def test_a_breach_of_the_contract_flags_unless_the_contract_does_not_count(self, make_outcome: MakeOutcome) -> None:
        outcome = make_outcome(breaches=("extent_out_of_range",))
        (counted,) = judge_all([outcome], [gate(0.1)], NQM)
        (ignored,) = judge_all([outcome], [gate(0.1)], NQM, contract=False)
        assert [reason.code for reason in counted.judgement.reasons] == ["extent_out_of_range"]
        assert not ignored.flagged


class TestCrossJudged:
    def test_no_fold_is_judged_by_a_calibration_that_saw_it(self, make_outcome: MakeOutcome) -> None:
        parts = [[make_outcome(f"{part}{number}", nqm=0.2) for number in range(2)] for part in "abc"]
        seen: list[set[str]] = []

        def calibrator(outcomes: Sequence[Outcome]) -> Sequence[Gate]:
            seen.append({one.scan[0] for one in outcomes})
            return [gate(0.1 if "a" in seen[-1] else 0.3)]

        judged = cross_judged(parts, calibrator, NQM)
        assert seen == [{"b", "c"}, {"a", "c"}, {"a", "b"}]
        assert [(one.outcome.scan, one.flagged) for one in judged] == [
            ("a0", False), ("a1", False), ("b0", True), ("b1", True), ("c0", True), ("c1", True)
        ]  # fmt: skip

    def test_says_whether_the_contract_counts(self, make_outcome: MakeOutcome) -> None:
        parts = [[make_outcome(breaches=("extent_out_of_range",))], [make_outcome()]]
        for contract in (True, False):
            judged = cross_judged(parts, lambda outcomes: [gate(0.1)], NQM, contract=contract)
            assert [one.flagged for one in judged] == [contract, False]


class TestDetection:
    def judged(
        self,
        make_outcome: MakeOutcome,
        *cases: tuple[float, Verdict, tuple[float, float] | None],
        nqm: float | None = 0.05,
    ) -> list[Judged]:
        """From (Dice, verdict, interval)."""
        return [
            Judged(
                make_outcome(dice=dice, nqm=nqm),
                Judgement(verdict, () if verdict == "accept" else (Reason("x", "y"),), "conformal", 0.9, interval),
            )
            for dice, verdict, interval in cases
        ]

    def test_worked_by_hand(self, make_outcome: MakeOutcome) -> None:
        found = detection(
            self.judged(
                make_outcome,
                (0.9, "accept", (0.8, 1.0)),  # a good mask, inside its interval
                (0.8, "accept", (0.85, 1.0)),  # just good enough, below its interval
                (0.9, "flag", (0.2, 0.5)),  # a false alarm, above its interval
                (0.7, "accept", (0.7, 0.9)),  # missed, at the end of its interval
                (0.2, "flag", None),
                (0.1, "flag", None),
            ),
            min_dice=0.8,
        )
        assert (found.outcomes, found.failures, found.passes) == (6, 3, 3)
        assert (found.detected, found.false_negatives, found.false_positives) == (2, 1, 1)
        assert found.detected_share == pytest.approx(2 / 3)
        assert found.false_negative_share == pytest.approx(1 / 6)
        assert found.false_positive_share == pytest.approx(1 / 3)
        assert found.risk == pytest.approx(1 / 3)
        assert found.coverage == pytest.approx(0.5)
        assert (found.dice_mean, found.dice_min) == (pytest.approx(0.6), 0.1)
        assert found.dice_sd == pytest.approx(np.std([0.9, 0.8, 0.9, 0.7, 0.2, 0.1]))
        assert found.nqm_median == 0.05

    def test_shares_of_nothing_are_undefined(self, make_outcome: MakeOutcome) -> None:
        good = detection(self.judged(make_outcome, (0.9, "accept", None)), min_dice=0.8)
        assert (good.detected_share, good.coverage, good.risk) == (None, None, 0.0)
        bad = detection(self.judged(make_outcome, (0.1, "flag", None), nqm=None), min_dice=0.8)
        assert (bad.false_positive_share, bad.risk, bad.nqm_median) == (None, None, None)
        assert bad.detected_share == 1.0


class TestGroups:
    def judged(self, make_outcome: MakeOutcome, *found: Condition) -> list[Judged]:
        return [Judged(make_outcome(condition=one), Judgement("accept", (), "nqm")) for one in found]

    def test_are_by_condition(self, make_outcome: MakeOutcome) -> None:
        found = groups(self.judged(make_outcome, Condition(CLEAN), *PAPER, Condition("spike", 1), Condition("bias", 5)))
        assert {name: len(part) for name, part in found.items()} == {
            "clean": 1,
            "noise (paper)": 1,
            "spike (paper)": 1,
            "ghosting (paper)": 1,
            PAPER_GROUP: 3,
            "noise": 1,
            "spike": 2,
            "ghosting": 1,
            "bias": 1,
            ALL_GROUP: 6,
        }

    def test_one_without_outcomes_is_left_out(self, make_outcome: MakeOutcome) -> None:
        assert set(groups(self.judged(make_outcome, Condition("crop", 2)))) == {"crop", ALL_GROUP}


class TestDetectionTable:
    def test_has_plain_figures_for_every_structure_and_group(self, make_outcome: MakeOutcome) -> None:
        outcomes = [
            make_outcome(dice=dice, structure=structure, condition=condition)
            for structure, dice in ((0, 0.9), (1, 0.5))
            for condition in (Condition(CLEAN), SPIKE)
        ]
        judged = [Judged(one, Judgement("accept", (), "nqm")) for one in outcomes]
        table = detection_table(judged, structures=("left", "right"), min_dice=0.8)
        assert set(table) == {"left", "right"}
        assert set(table["left"]) == {"clean", "spike (paper)", PAPER_GROUP, "spike", ALL_GROUP}
        assert (table["left"]["all"]["failures"], table["right"]["all"]["failures"]) == (0, 2)
        assert table["right"]["clean"]["false_negatives"] == 1
        assert table["left"]["clean"]["dice_mean"] == 0.9

    def test_a_flag_counts_whatever_the_reason(self, make_outcome: MakeOutcome) -> None:
        outcome = replace(make_outcome(dice=0.1), breaches=("intensity_unusual",))
        table = detection_table(judge_all([outcome], [gate(0.1)], NQM), structures=("ball",), min_dice=0.8)
        assert (table["ball"]["clean"]["detected"], table["ball"]["clean"]["false_negatives"]) == (1, 0)
