"""Figures on the validation part: Dice, and how well the verdict finds what failed (seed, section 3.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from nca.quality import Line, Reason, judge
from training.artefacts import ARTEFACTS, degrade
from training.config import TrainingConfig
from training.data import Case
from training.judged import Judge, Outcome

CLEAN = "clean"


@dataclass(frozen=True)
class Detection:
    """How the verdict fared on one condition; a failure is a mask whose Dice is below the limit.

    Attributes:
        failures, passes: masks below and not below the limit.
        detected: failures that were flagged.
        false_negatives: failures that were accepted.
        false_positives: passes that were flagged.
        detected_share: detected / failures; None without failures.
        false_negative_share: false_negatives / scans.
        false_positive_share: false_positives / passes; None without passes.
    """

    scans: int
    dice_mean: float
    dice_sd: float
    dice_min: float
    nqm_mean: float | None
    failures: int
    passes: int
    detected: int
    false_negatives: int
    false_positives: int
    detected_share: float | None
    false_negative_share: float
    false_positive_share: float | None


def validation_outcomes(
    cases: Sequence[Case],
    verdict_of: Judge,
    *,
    config: TrainingConfig,
    on_scan: Callable[[], None] = lambda: None,
) -> list[Outcome]:
    """Outcomes of every validation scan, clean and with each artefact of the paper, for the largest ensemble."""
    outcomes: list[Outcome] = []
    for position, case in enumerate(cases):
        for kind, condition in enumerate((CLEAN, *ARTEFACTS)):
            rng = np.random.default_rng([config.seed, position, kind])
            volume = case.volume if condition == CLEAN else degrade(case.volume, condition, rng=rng)
            outcomes += [
                one
                for one in verdict_of(volume, case.truth, (case.name, condition))
                if one.members == config.calibration.members
            ]
            on_scan()
    return outcomes


@dataclass(frozen=True)
class Gate:
    """What decides a verdict: the calibration's lines, the plausible volume of each segment, the Dice asked for.

    With ``contract`` breaches of the input contract count too, as in the service; without, NQM and volume alone.
    """

    lines: Sequence[Line]
    volume_ml: Sequence[tuple[float, float]]
    min_dice: float
    contract: bool = True

    def flags(self, outcome: Outcome) -> bool:
        """Whether this outcome would be flagged."""
        breaches = [Reason(code, "") for code in outcome.breaches] if self.contract else []
        judgement = judge(
            outcome.evidence,
            lines=self.lines,
            volume_ml_range=self.volume_ml[outcome.segment],
            min_dice=self.min_dice,
            violations=breaches,
        )
        return judgement.verdict == "flag"


def detection(outcomes: Sequence[Outcome], gate: Gate) -> Detection:
    """Compare the gate's verdicts with the truth."""
    flagged = np.array([gate.flags(one) for one in outcomes])
    dices = np.array([one.dice for one in outcomes])
    nqms = [one.nqm for one in outcomes if one.nqm is not None]
    failed = dices < gate.min_dice
    failures, passes = int(failed.sum()), int((~failed).sum())
    detected, false_positives = int((failed & flagged).sum()), int((~failed & flagged).sum())
    return Detection(
        scans=len(outcomes),
        dice_mean=float(dices.mean()),
        dice_sd=float(dices.std()),
        dice_min=float(dices.min()),
        nqm_mean=float(np.mean(nqms)) if nqms else None,
        failures=failures,
        passes=passes,
        detected=detected,
        false_negatives=failures - detected,
        false_positives=false_positives,
        detected_share=detected / failures if failures else None,
        false_negative_share=(failures - detected) / len(outcomes),
        false_positive_share=false_positives / passes if passes else None,
    )


def detection_table(outcomes: Sequence[Outcome], gate: Gate) -> dict[str, dict[str, float | int | None]]:
    """`Detection` as plain figures for each condition, and for the three artefacts together ("artefacts")."""
    groups = {name: [one for one in outcomes if one.condition == name] for name in (CLEAN, *ARTEFACTS)}
    groups["artefacts"] = [one for one in outcomes if one.condition != CLEAN]
    return {name: asdict(detection(group, gate)) for name, group in groups.items()}
