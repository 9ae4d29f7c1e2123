"""The verdict: accept only where the calibration says so and nothing speaks against it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from nca.conformal import CONFIDENCE, Calibrated
from nca.evidence import Evidence
from nca.regression import Line, Regression

Verdict = Literal["accept", "flag"]
Rule = Literal["nqm", "conformal"]
"""What an accepted mask must show: the paper's NQM below a threshold, or a predicted Dice with a stated risk."""
DEFAULT_RULE: Rule = "conformal"


@dataclass(frozen=True)
class Reason:
    """Why a mask is flagged: a stable ``code`` and one sentence for a person."""

    code: str
    detail: str


@dataclass(frozen=True)
class Policy:
    """What is asked of an accepted mask.

    Attributes:
        min_dice: a mask below it has failed.
        alpha: largest share of failures among what is accepted (rule "conformal").
    """

    min_dice: float
    alpha: float
    rule: Rule = DEFAULT_RULE


@dataclass(frozen=True)
class Observed:
    """One structure as an ensemble left it.

    Attributes:
        nqm: NCA quality metric; None where it is undefined.
        finite: False where a probability was NaN or infinite.
        volume_ml: volume of the mask in millilitres, on the scan's own grid.
        members: size of the ensemble.
        evidence: None where the mask is empty.
    """

    nqm: float | None
    finite: bool
    volume_ml: float
    members: int
    evidence: Evidence | None


@dataclass(frozen=True)
class Judgement:
    """The verdict on one mask with the numbers it rests on; ``reasons`` is empty exactly where it is accepted.

    Attributes:
        predicted_dice: None where nothing can be predicted.
        dice_interval: range of the true Dice (90 %, on scans like those of the calibration); rule "conformal" only.
        required_dice: what the predicted Dice had to reach; None where no threshold keeps the risk.
        nqm_threshold: NQM at which the paper's line meets min_dice; None without a line for this ensemble.
    """

    verdict: Verdict
    reasons: tuple[Reason, ...]
    rule: Rule
    predicted_dice: float | None = None
    dice_interval: tuple[float, float] | None = None
    required_dice: float | None = None
    nqm_threshold: float | None = None


@dataclass(frozen=True)
class Plausible:
    """What a mask of a structure may look like, whatever Dice is predicted.

    Attributes:
        volume_ml: smallest and largest volume.
        border_max: largest share of the mask on the edge of the field of view.
    """

    volume_ml: tuple[float, float]
    border_max: float

    def objections(self, observed: Observed) -> list[Reason]:
        """Every reason to flag the mask for what it is."""
        if not observed.finite:
            return [Reason("not_finite", "the network produced values that are not finite")]
        reasons = []
        low, high = self.volume_ml
        if observed.nqm is None:
            reasons.append(Reason("nqm_undefined", "the ensemble found nothing at all, so NQM is undefined"))
        if observed.volume_ml == 0.0:
            reasons.append(Reason("empty_mask", "the mask is empty"))
        elif not low <= observed.volume_ml <= high:
            detail = f"the mask has {observed.volume_ml:.2f} ml; between {low:.2f} and {high:.2f} ml was expected"
            reasons.append(Reason("volume_implausible", detail))
        if observed.evidence is not None and observed.evidence.border > self.border_max:
            detail = (
                f"{observed.evidence.border:.1%} of the mask lies on the edge of the field of view, perhaps cut off"
            )
            reasons.append(Reason("structure_cut_off", detail))
        return reasons


@dataclass(frozen=True, eq=False)
class Gate:
    """All that a version knows for judging one structure.

    Attributes:
        lines: from NQM to Dice, one per ensemble size.
        regression: from all evidence to Dice, for ensembles of ``members``.
        calibrated: what became of the calibration scans.
    """

    lines: Sequence[Line]
    regression: Regression
    members: int
    calibrated: Calibrated
    plausible: Plausible

    def judge(self, observed: Observed, policy: Policy, *, violations: Sequence[Reason] = ()) -> Judgement:
        """Accept only where nothing speaks against it; otherwise flag, with every reason.

        ``violations`` are breaches of the model's input contract found before.
        """
        reasons = [*violations, *self.plausible.objections(observed)]
        decide = self._by_risk if policy.rule == "conformal" else self._by_nqm
        return decide(observed, policy, reasons)

    def _by_nqm(self, observed: Observed, policy: Policy, reasons: list[Reason]) -> Judgement:
        """The paper's rule. Larger ensembles than calibrated use the largest line: their NQM is a little higher."""
        line = self._line(observed.members)
        if line is None:
            detail = f"NQM is not calibrated for an ensemble of {observed.members} members"
            return Judgement("flag", (*reasons, Reason("ensemble_too_small", detail)), "nqm")
        threshold = line.threshold(policy.min_dice)
        predicted = None if observed.nqm is None else line.predicted_dice(observed.nqm)
        if observed.nqm is not None and not observed.nqm <= threshold:
            detail = f"NQM {observed.nqm:.3f} is above {threshold:.3f}: the predicted Dice is below {policy.min_dice:g}"
            reasons.append(Reason("nqm_above_threshold", detail))
        return Judgement(
            "flag" if reasons else "accept", tuple(reasons), "nqm", predicted, None, policy.min_dice, threshold
        )

    def _by_risk(self, observed: Observed, policy: Policy, reasons: list[Reason]) -> Judgement:
        """The predicted Dice must reach min_dice, and what keeps the share of failures among the accepted."""
        line = self._line(observed.members)
        nqm_threshold = line.threshold(policy.min_dice) if line else None
        if observed.members < self.members:
            detail = f"the risk is known for ensembles of {self.members} members, not of {observed.members}"
            reasons.append(Reason("ensemble_too_small", detail))
            return Judgement("flag", tuple(reasons), "conformal", nqm_threshold=nqm_threshold)
        predicted = None if observed.evidence is None else self.regression.predicted_dice(observed.evidence)
        required = self.required_dice(policy)
        share = f"{100 * policy.alpha:g} % of the accepted masks are below Dice {policy.min_dice:g}"
        if required is None:
            sure = f"with {CONFIDENCE:.0%} confidence"
            detail = f"the calibration scans do not show for any threshold, {sure}, that at most {share}"
            reasons.append(Reason("risk_not_certified", detail))
        elif predicted is not None and not predicted >= required:
            detail = f"the predicted Dice is {predicted:.3f}; {required:.3f} is needed so that at most {share}"
            reasons.append(Reason("predicted_dice_too_low", detail))
        elif predicted is None and not reasons:
            reasons.append(Reason("empty_mask", "the mask is empty on the model's grid"))
        return Judgement(
            "flag" if reasons else "accept",
            tuple(reasons),
            "conformal",
            predicted,
            None if predicted is None else self.calibrated.interval(predicted),
            required,
            nqm_threshold,
        )

    def required_dice(self, policy: Policy) -> float | None:
        """What a predicted Dice must reach under the rule "conformal"; None where no threshold keeps the risk."""
        threshold = self.calibrated.threshold(min_dice=policy.min_dice, alpha=policy.alpha)
        return None if threshold is None else max(threshold, policy.min_dice)

    def _line(self, members: int) -> Line | None:
        return max((one for one in self.lines if one.members <= members), key=lambda one: one.members, default=None)
