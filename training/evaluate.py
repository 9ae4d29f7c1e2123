"""How the verdict fares against the truth (seed, section 3.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from nca.gate import Gate, Judgement, Policy, Reason
from training.artefacts import CLEAN, KINDS, PAPER, Condition
from training.outcomes import Outcome

Calibrator = Callable[[Sequence[Outcome]], Sequence[Gate]]
"""Gates, one per structure, from outcomes."""

PAPER_GROUP = "paper's artefacts"
ALL_GROUP = "all"


@dataclass(frozen=True)
class Judged:
    """An outcome with the verdict that a gate gave it."""

    outcome: Outcome
    judgement: Judgement

    @property
    def flagged(self) -> bool:
        """Whether a person is asked to look."""
        return self.judgement.verdict == "flag"


@dataclass(frozen=True)
class Detection:
    """How the verdict fared on a group of outcomes; a failure is a mask whose Dice is below the limit.

    Attributes:
        failures, passes: masks below and not below the limit.
        detected: failures that were flagged.
        false_negatives: failures that were accepted.
        false_positives: passes that were flagged.
        detected_share: detected / failures; None without failures.
        false_negative_share: false_negatives / outcomes.
        false_positive_share: false_positives / passes; None without passes.
        risk: false_negatives / accepted; None where none was accepted.
        coverage: share of outcomes whose true Dice lies in the stated interval; None where none was stated.
    """

    outcomes: int
    dice_mean: float
    dice_sd: float
    dice_min: float
    nqm_median: float | None
    failures: int
    passes: int
    detected: int
    false_negatives: int
    false_positives: int
    detected_share: float | None
    false_negative_share: float
    false_positive_share: float | None
    risk: float | None
    coverage: float | None


def judge_all(
    outcomes: Sequence[Outcome], gates: Sequence[Gate], policy: Policy, *, contract: bool = True
) -> list[Judged]:
    """The verdict on every outcome of a whole ensemble; without ``contract`` the input contract does not count."""
    judged = []
    for one in outcomes:
        gate = gates[one.structure]
        if one.observed.members == gate.members:
            breaches = [Reason(code, "") for code in one.breaches] if contract else []
            judged.append(Judged(one, gate.judge(one.observed, policy, violations=breaches)))
    return judged


def cross_judged(
    parts: Sequence[Sequence[Outcome]], calibration: Calibrator, policy: Policy, *, contract: bool = True
) -> list[Judged]:
    """The verdict on every fold's outcomes by gates that were calibrated on the other folds alone."""
    judged: list[Judged] = []
    for index, part in enumerate(parts):
        judged += judge_all(part, calibration(others(parts, index)), policy, contract=contract)
    return judged


def others(parts: Sequence[Sequence[Outcome]], index: int) -> list[Outcome]:
    """The outcomes of all parts but one."""
    return [one for other, outcomes in enumerate(parts) if other != index for one in outcomes]


def detection(judged: Sequence[Judged], *, min_dice: float) -> Detection:
    """Compare verdicts with the truth."""
    flagged = np.array([one.flagged for one in judged])
    dices = np.array([one.outcome.dice for one in judged])
    nqms = [one.outcome.observed.nqm for one in judged if one.outcome.observed.nqm is not None]
    failed = dices < min_dice
    failures, passes, accepted = int(failed.sum()), int((~failed).sum()), int((~flagged).sum())
    detected, false_positives = int((failed & flagged).sum()), int((~failed & flagged).sum())
    return Detection(
        outcomes=len(judged),
        dice_mean=float(dices.mean()),
        dice_sd=float(dices.std()),
        dice_min=float(dices.min()),
        nqm_median=float(np.median(nqms)) if nqms else None,
        failures=failures,
        passes=passes,
        detected=detected,
        false_negatives=failures - detected,
        false_positives=false_positives,
        detected_share=detected / failures if failures else None,
        false_negative_share=(failures - detected) / len(judged),
        false_positive_share=false_positives / passes if passes else None,
        risk=(failures - detected) / accepted if accepted else None,
        coverage=_coverage(judged),
    )


def _coverage(judged: Sequence[Judged]) -> float | None:
    stated = [(one.outcome.dice, one.judgement.dice_interval) for one in judged]
    inside = [low <= dice <= high for dice, interval in stated if interval for low, high in [interval]]
    return float(np.mean(inside)) if inside else None


def groups(judged: Sequence[Judged]) -> dict[str, list[Judged]]:
    """By condition: clean, each of the paper's, these together, each kind at every severity, and all."""
    found = {one.outcome.condition for one in judged}
    members = {CLEAN: {Condition(CLEAN)}, **{f"{one.kind} (paper)": {one} for one in PAPER}, PAPER_GROUP: set(PAPER)}
    members |= {kind: {one for one in found if one.kind == kind} for kind in KINDS}
    members |= {ALL_GROUP: found}
    chosen = {name: [one for one in judged if one.outcome.condition in those] for name, those in members.items()}
    return {name: group for name, group in chosen.items() if group}


def detection_table(judged: Sequence[Judged], *, structures: Sequence[str], min_dice: float) -> dict[str, Any]:
    """`Detection` as plain figures for each structure and each of the `groups`."""
    return {
        name: {
            group: asdict(detection(part, min_dice=min_dice))
            for group, part in groups([one for one in judged if one.outcome.structure == index]).items()
        }
        for index, name in enumerate(structures)
    }
