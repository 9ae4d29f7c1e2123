"""From outcomes of labelled scans to what judges: the paper's line (seed, section 2.3) and a regression."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from model_store.calibration import CalibrationRow, calibrated
from model_store.loaded import make_gates
from model_store.manifest import Calibration, InputContract, StructureCalibration
from nca.gate import Gate, Plausible
from nca.regression import Line, Regression, fit_line, fit_regression
from training.config import CalibrationSection
from training.data import patient_of
from training.outcomes import Outcome

SMALLEST_ENSEMBLE = 2
"""One member has no spread, hence no NQM to calibrate."""
LINE_NQM_MAX = 0.5
"""The line is drawn up to here: beyond it little is left of a mask, and Dice falls no further."""
REGRESSION = ("log_nqm", "disagreement", "stray")
"""The evidence that predicts Dice. More of it (entropy, shape, contrast, sharpness) fitted the kinds of damage it was
fitted on better, and one that was left out no better or worse: docs/experiments.md."""


@dataclass(frozen=True)
class Calibrating:
    """A calibration with the outcomes it rests on."""

    calibration: Calibration
    rows: tuple[CalibrationRow, ...]
    contract: InputContract

    @cached_property
    def gates(self) -> tuple[Gate, ...]:
        """What judges each structure."""
        structures = range(len(self.calibration.structures))
        each = [calibrated([row for row in self.rows if row.structure == one]) for one in structures]
        return make_gates(self.calibration, each, self.contract)


def calibrate(
    outcomes: Sequence[Outcome], contract: InputContract, *, section: CalibrationSection, data: str, patient: str = ""
) -> Calibrating:
    """Fit everything to outcomes of scans that the network which judged them was not trained on.

    ``patient`` is `TrainingConfig.patient`: what one patient's scans say counts as one, for they are much alike.

    Raises:
        UncalibratableError: Dice does not fall with NQM, or there are too few outcomes.
    """
    structures = range(1 + max(one.structure for one in outcomes))
    each = [[one for one in outcomes if one.structure == index] for index in structures]
    fitted = [
        StructureCalibration(lines=_lines(part, section.members), regression=_regression(part, section.members))
        for part in each
    ]
    final = [one for one in outcomes if one.observed.members == section.members]
    calibration = Calibration(
        data=data,
        members=section.members,
        min_dice=section.min_dice,
        alpha=section.alpha,
        scans=tuple(sorted({one.scan for one in final})),
        outcomes=len(final) // len(structures),
        kinds=tuple(dict.fromkeys(one.condition.kind for one in final)),
        structures=tuple(fitted),
    )
    rows = tuple(
        _row(one, patient_of(one.scan, patient), fitted[one.structure].regression, contract.plausible[one.structure])
        for one in final
    )
    return Calibrating(calibration, rows, contract)


def calibrator(
    contract: InputContract, section: CalibrationSection, *, patient: str = ""
) -> Callable[[Sequence[Outcome]], tuple[Gate, ...]]:
    """A function that gives the gates which `calibrate` makes of outcomes."""
    return lambda outcomes: calibrate(outcomes, contract, section=section, data="", patient=patient).gates


def _row(outcome: Outcome, unit: str, regression: Regression, plausible: Plausible) -> CalibrationRow:
    evidence = outcome.observed.evidence
    return CalibrationRow(
        structure=outcome.structure,
        scan=unit,
        condition=str(outcome.condition),
        predicted=0.0 if evidence is None else regression.predicted_dice(evidence),
        dice=outcome.dice,
        refused=evidence is None or bool(outcome.breaches) or bool(plausible.objections(outcome.observed)),
    )


def _lines(outcomes: Sequence[Outcome], members: int) -> tuple[Line, ...]:
    """One line for every ensemble of 2 .. ``members`` members."""
    lines = []
    for count in range(SMALLEST_ENSEMBLE, members + 1):
        seen = [(one.observed.nqm, one.dice) for one in outcomes if one.observed.members == count]
        drawn = [(nqm, dice) for nqm, dice in seen if nqm is not None and nqm <= LINE_NQM_MAX]
        lines.append(fit_line([nqm for nqm, _ in drawn], [dice for _, dice in drawn], members=count))
    return tuple(lines)


def _regression(outcomes: Sequence[Outcome], members: int) -> Regression:
    chosen = [one for one in outcomes if one.observed.members == members and one.observed.evidence is not None]
    figures = [one.observed.evidence.vector(REGRESSION) for one in chosen if one.observed.evidence]
    return fit_regression(REGRESSION, np.array(figures), np.array([one.dice for one in chosen]))
