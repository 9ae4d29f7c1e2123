from dataclasses import replace

import numpy as np
import pytest

from nca.conformal import Calibrated
from nca.evidence import Evidence
from nca.gate import DEFAULT_RULE, Gate, Judgement, Observed, Plausible, Policy, Reason
from nca.regression import Line, Regression

SCANS = 100
SMALL = Line(members=4, slope=-1.0, intercept=0.90, residual=0.03, pearson=-0.8, points=50)
LINE = Line(members=10, slope=-1.0, intercept=0.95, residual=0.02, pearson=-0.9, points=50)
REGRESSION = Regression(("nqm",), (0.0,), (1.0,), (0.0,), (1.0,), (-2.0,), 1.0)
"""Predicted Dice = 1 - 2 NQM."""
EVIDENCE = Evidence(nqm=0.05, log_nqm=-2.8, mask_nqm=0.05, disagreement=0.05, entropy=0.1, stray=0.0, border=0.01)
GOOD = Observed(nqm=0.05, finite=True, volume_ml=3.0, members=10, evidence=EVIDENCE)
EMPTY = Observed(nqm=0.05, finite=True, volume_ml=0.0, members=10, evidence=None)
NOTHING = replace(EMPTY, nqm=None)
BROKEN = Observed(nqm=None, finite=False, volume_ml=0.0, members=10, evidence=None)
PLAUSIBLE = Plausible(volume_ml=(1.0, 6.0), border_max=0.05)
NQM = Policy(min_dice=0.8, alpha=0.05, rule="nqm")
RISK = Policy(min_dice=0.8, alpha=0.05, rule="conformal")
BOTH = pytest.mark.parametrize("policy", [NQM, RISK], ids=["nqm", "conformal"])


def outcomes(*pairs: tuple[float, float]) -> Calibrated:
    """The same (predicted, true) Dice on each of 100 scans."""
    predicted, dice = np.array(pairs).T
    scan = np.repeat(np.arange(SCANS), len(pairs))
    return Calibrated(scan, np.tile(predicted, SCANS), np.tile(dice, SCANS), np.zeros(len(scan), bool))


GATE = Gate(
    lines=(SMALL, LINE),
    regression=REGRESSION,
    members=10,
    calibrated=outcomes((0.95, 0.93), (0.9, 0.88), (0.9, 0.94), (0.86, 0.82), (0.6, 0.5)),
    plausible=PLAUSIBLE,
)
"""What is predicted above 0.6 never fails at Dice 0.8: the threshold lies just above."""


def seen(nqm: float) -> Observed:
    return replace(GOOD, nqm=nqm, evidence=replace(EVIDENCE, nqm=nqm))


def codes(judgement: Judgement) -> list[str]:
    return [reason.code for reason in judgement.reasons]


class TestAnyRule:
    def test_the_default_is_the_rule_with_a_stated_risk(self) -> None:
        assert Policy(0.8, 0.05).rule == DEFAULT_RULE == "conformal"

    @BOTH
    def test_accepts_where_nothing_speaks_against_it(self, policy: Policy) -> None:
        judgement = GATE.judge(GOOD, policy)
        assert (judgement.verdict, judgement.reasons, judgement.rule) == ("accept", (), policy.rule)

    @BOTH
    def test_an_empty_mask_is_flagged_however_sure_the_members_are(self, policy: Policy) -> None:
        judgement = GATE.judge(EMPTY, policy)
        assert (judgement.verdict, codes(judgement)) == ("flag", ["empty_mask"])

    @BOTH
    def test_an_undefined_nqm_is_flagged_with_its_own_reason(self, policy: Policy) -> None:
        judgement = GATE.judge(NOTHING, policy)
        assert (judgement.verdict, codes(judgement)) == ("flag", ["nqm_undefined", "empty_mask"])
        assert judgement.predicted_dice is None

    @BOTH
    def test_values_that_are_not_finite_are_flagged(self, policy: Policy) -> None:
        judgement = GATE.judge(BROKEN, policy)
        assert (judgement.verdict, codes(judgement)) == ("flag", ["not_finite"])

    @BOTH
    def test_a_nan_is_never_accepted(self, policy: Policy) -> None:
        assert GATE.judge(seen(float("nan")), policy).verdict == "flag"

    @BOTH
    @pytest.mark.parametrize("volume", [0.99, 6.01])
    def test_an_implausible_volume_is_flagged(self, policy: Policy, volume: float) -> None:
        judgement = GATE.judge(replace(GOOD, volume_ml=volume), policy)
        assert (judgement.verdict, codes(judgement)) == ("flag", ["volume_implausible"])

    @BOTH
    @pytest.mark.parametrize("volume", [1.0, 6.0])
    def test_the_ends_of_the_plausible_volumes_are_plausible(self, policy: Policy, volume: float) -> None:
        assert GATE.judge(replace(GOOD, volume_ml=volume), policy).verdict == "accept"

    @BOTH
    def test_a_structure_that_is_cut_off_is_flagged(self, policy: Policy) -> None:
        cut, whole = (replace(GOOD, evidence=replace(EVIDENCE, border=border)) for border in (0.051, 0.05))
        assert codes(GATE.judge(cut, policy)) == ["structure_cut_off"]
        assert GATE.judge(whole, policy).verdict == "accept"

    @BOTH
    def test_a_breach_of_the_input_contract_is_flagged(self, policy: Policy) -> None:
        breach = Reason("extent_out_of_range", "too large")
        judgement = GATE.judge(GOOD, policy, violations=(breach,))
        assert (judgement.verdict, judgement.reasons) == ("flag", (breach,))

    @BOTH
    def test_every_reason_is_told(self, policy: Policy) -> None:
        cut = replace(seen(0.4), volume_ml=9.0)
        cut = replace(cut, evidence=replace(cut.evidence or EVIDENCE, border=0.5))
        found = codes(GATE.judge(cut, policy, violations=(Reason("modality_unexpected", "it is CT"),)))
        last = "nqm_above_threshold" if policy.rule == "nqm" else "predicted_dice_too_low"
        assert found == ["modality_unexpected", "volume_implausible", "structure_cut_off", last]


class TestByNqm:
    def test_says_what_it_rests_on(self) -> None:
        judgement = GATE.judge(GOOD, NQM)
        assert judgement.predicted_dice == pytest.approx(0.90)
        assert judgement.nqm_threshold == pytest.approx(0.15)
        assert (judgement.required_dice, judgement.dice_interval) == (0.8, None)

    def test_flags_an_nqm_above_the_threshold(self) -> None:
        judgement = GATE.judge(seen(0.151), NQM)
        assert (judgement.verdict, codes(judgement)) == ("flag", ["nqm_above_threshold"])
        assert judgement.predicted_dice == pytest.approx(0.799)

    def test_a_stricter_limit_flags_what_was_accepted(self) -> None:
        assert codes(GATE.judge(GOOD, replace(NQM, min_dice=0.91))) == ["nqm_above_threshold"]

    def test_neither_alpha_nor_what_became_of_the_calibration_scans_matters(self) -> None:
        bad = replace(GATE, calibrated=outcomes((0.95, 0.1), (0.9, 0.1)))
        assert bad.judge(GOOD, replace(NQM, alpha=0.001)) == GATE.judge(GOOD, NQM)

    def test_a_single_member_has_no_nqm_to_trust(self) -> None:
        judgement = GATE.judge(replace(GOOD, members=1), NQM)
        assert (judgement.verdict, codes(judgement)) == ("flag", ["ensemble_too_small"])
        assert judgement.nqm_threshold is None

    @pytest.mark.parametrize(("members", "predicted"), [(4, 0.85), (9, 0.85), (10, 0.90), (30, 0.90)])
    def test_uses_the_line_of_the_largest_ensemble_not_above_its_own(self, members: int, predicted: float) -> None:
        assert GATE.judge(replace(GOOD, members=members), NQM).predicted_dice == pytest.approx(predicted)


class TestByRisk:
    def test_says_what_it_rests_on(self) -> None:
        judgement = GATE.judge(GOOD, RISK)
        assert judgement.predicted_dice == pytest.approx(0.9)
        assert judgement.dice_interval == (0.88, 0.94)  # of the calibration masks predicted alike
        assert judgement.required_dice == 0.8
        assert judgement.nqm_threshold == pytest.approx(0.15)

    def test_flags_a_predicted_dice_below_the_limit(self) -> None:
        judgement = GATE.judge(seen(0.11), RISK)
        assert (judgement.verdict, codes(judgement)) == ("flag", ["predicted_dice_too_low"])
        assert judgement.predicted_dice == pytest.approx(0.78)
        assert judgement.dice_interval is not None

    def test_flags_a_predicted_dice_that_often_came_with_failures(self) -> None:
        doubtful = replace(GATE, calibrated=outcomes((0.97, 0.95), (0.93, 0.9), (0.9, 0.6), (0.5, 0.2)))
        required = doubtful.required_dice(RISK)
        assert required is not None
        assert 0.9 < required <= 0.93
        judgement = doubtful.judge(GOOD, RISK)  # predicted 0.9, above the limit of 0.8
        assert (codes(judgement), judgement.required_dice) == (["predicted_dice_too_low"], required)

    def test_flags_everything_where_no_threshold_keeps_the_risk(self) -> None:
        hopeless = replace(GATE, calibrated=outcomes((0.95, 0.3), (0.9, 0.95)))
        judgement = hopeless.judge(GOOD, RISK)
        assert (judgement.verdict, codes(judgement)) == ("flag", ["risk_not_certified"])
        assert judgement.required_dice is None
        assert judgement.predicted_dice == pytest.approx(0.9)

    def test_a_risk_too_small_for_so_few_scans_flags_everything(self) -> None:
        assert codes(GATE.judge(GOOD, replace(RISK, alpha=0.001))) == ["risk_not_certified"]

    @pytest.mark.parametrize("members", [1, 4, 9])
    def test_a_smaller_ensemble_than_was_calibrated_is_flagged(self, members: int) -> None:
        judgement = GATE.judge(replace(GOOD, members=members), RISK)
        assert (judgement.verdict, codes(judgement)) == ("flag", ["ensemble_too_small"])
        assert (judgement.predicted_dice, judgement.dice_interval, judgement.required_dice) == (None, None, None)

    def test_a_larger_ensemble_than_was_calibrated_is_judged_as_that(self) -> None:
        assert GATE.judge(replace(GOOD, members=30), RISK) == GATE.judge(GOOD, RISK)

    def test_a_mask_that_is_empty_on_the_models_grid_alone_is_flagged(self) -> None:
        judgement = GATE.judge(replace(GOOD, evidence=None), RISK)
        assert (judgement.verdict, codes(judgement)) == ("flag", ["empty_mask"])
