"""From NQM to a predicted Dice: spike-enriched training scans and a straight line (seed, section 2.3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from nca.quality import Line, fit_line
from training.artefacts import spike
from training.config import TrainingConfig
from training.data import Case
from training.judged import Judge, Outcome

SMALLEST_ENSEMBLE = 2
"""One member has no spread, hence no NQM to calibrate."""


def calibration_outcomes(
    cases: Sequence[Case], judge: Judge, *, config: TrainingConfig, on_scan: Callable[[], None] = lambda: None
) -> list[Outcome]:
    """Outcomes of training scans, each clean and with spikes of random intensity.

    Every second scan is mirrored left to right, as in training, so that the line holds for both sides.
    """
    section = config.calibration
    outcomes: list[Outcome] = []
    for position, case in enumerate(cases[: section.scans]):
        rng = np.random.default_rng([config.seed, position])
        intensities = rng.uniform(*section.spike_intensity, section.spikes_per_scan)
        spiked = [spike(case.volume, intensity=float(one), rng=rng) for one in intensities]
        for volume in (case.volume, *spiked):
            condition = "clean" if volume is case.volume else "spike"
            outcomes += judge(volume, case.truth, (case.name, condition))
            on_scan()
    return outcomes


def fit_lines(outcomes: Sequence[Outcome], *, members: int) -> list[Line]:
    """One line for every ensemble of 2 .. ``members`` members, from the outcomes whose NQM is defined.

    Raises:
        UncalibratableError: Dice does not fall with NQM.
    """
    lines = []
    for count in range(SMALLEST_ENSEMBLE, members + 1):
        pairs = [(one.nqm, one.dice) for one in outcomes if one.members == count and one.nqm is not None]
        lines.append(fit_line([nqm for nqm, _ in pairs], [dice for _, dice in pairs], members=count))
    return lines
