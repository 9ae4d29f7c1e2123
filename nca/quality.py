"""How far to trust a mask: NQM, pairwise Dice, the regression from NQM to Dice, and the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nca.errors import UncalibratableError

Verdict = Literal["accept", "flag"]
MIN_POINTS = 10
"""Fewest (NQM, Dice) pairs from which a line is drawn."""


@dataclass(frozen=True)
class Reason:
    """Why a mask is flagged: a stable ``code`` and one sentence for a person."""

    code: str
    detail: str


def nqm(mean: NDArray[np.floating], deviation: NDArray[np.floating]) -> float | None:
    """NCA quality metric (seed, equation 1): summed standard deviation over summed mean, of the probabilities.

    Both arrays have the same shape, in voxels of the model's grid. None where the mean sums to zero: the ratio
    is then undefined, and such a mask is flagged with its own reason.
    """
    total = float(np.sum(mean, dtype=np.float64))
    return float(np.sum(deviation, dtype=np.float64)) / total if total > 0.0 else None


def dice(prediction: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Dice of two boolean masks of the same shape, 0 to 1; 1 where both are empty."""
    total = int(prediction.sum()) + int(truth.sum())
    return 2.0 * int((prediction & truth).sum()) / total if total else 1.0


def pairwise_dice(packed_masks: Sequence[NDArray[np.uint8]]) -> float | None:
    """Mean Dice over all pairs of bit-packed masks (`numpy.packbits`, zero-padded).

    Two empty masks agree (Dice 1), as in `dice`; None with fewer than two masks or where all are empty.
    """
    sizes = [int(np.bitwise_count(mask).sum()) for mask in packed_masks]
    if len(sizes) < 2 or not any(sizes):
        return None
    scores = []
    for i, j in combinations(range(len(sizes)), 2):
        total = sizes[i] + sizes[j]
        common = int(np.bitwise_count(packed_masks[i] & packed_masks[j]).sum())
        scores.append(2.0 * common / total if total else 1.0)
    return float(np.mean(scores))


@dataclass(frozen=True)
class Line:
    """Dice = ``intercept`` + ``slope`` * NQM, fitted for an ensemble of ``members``.

    Attributes:
        residual: standard deviation of the residuals, in Dice.
        pearson: correlation of NQM with Dice.
        points: scans the line was fitted to.
    """

    members: int
    slope: float
    intercept: float
    residual: float
    pearson: float
    points: int

    def predicted_dice(self, nqm: float) -> float:
        """The Dice this NQM predicts, clipped to 0 .. 1."""
        return float(np.clip(self.intercept + self.slope * nqm, 0.0, 1.0))

    def threshold(self, min_dice: float) -> float:
        """Largest NQM at which the predicted Dice still reaches ``min_dice``; negative if no NQM does."""
        return (min_dice - self.intercept) / self.slope


def fit_line(nqms: Sequence[float], dices: Sequence[float], *, members: int) -> Line:
    """Least-squares line from NQM to Dice (seed, section 2.3).

    Raises:
        UncalibratableError: fewer than 10 points, or Dice that does not fall as NQM rises.
    """
    x, y = np.asarray(nqms, dtype=np.float64), np.asarray(dices, dtype=np.float64)
    if len(x) < MIN_POINTS or x.std() == 0.0 or y.std() == 0.0:
        raise UncalibratableError(f"{len(x)} scans with {x.std():.3g} spread of NQM do not give a line")
    slope, intercept = np.polyfit(x, y, 1)
    if slope >= 0.0:
        raise UncalibratableError(f"Dice rises with NQM (slope {slope:.3f})")
    residual = float(np.sqrt(np.sum((y - intercept - slope * x) ** 2) / (len(x) - 2)))
    return Line(
        members=members,
        slope=float(slope),
        intercept=float(intercept),
        residual=residual,
        pearson=float(np.corrcoef(x, y)[0, 1]),
        points=len(x),
    )


@dataclass(frozen=True)
class Judgement:
    """The verdict on one mask with the numbers it rests on; ``reasons`` is empty exactly where it is accepted."""

    verdict: Verdict
    reasons: tuple[Reason, ...]
    predicted_dice: float | None
    nqm_threshold: float | None


@dataclass(frozen=True)
class Evidence:
    """What a verdict is drawn from: figures of one segment's ensemble.

    Attributes:
        nqm: NCA quality metric; None where it is undefined.
        finite: False where a probability was NaN or infinite.
        volume_ml: volume of the mask in millilitres.
        members: size of the ensemble.
    """

    nqm: float | None
    finite: bool
    volume_ml: float
    members: int


def judge(
    evidence: Evidence,
    *,
    lines: Sequence[Line],
    volume_ml_range: tuple[float, float],
    min_dice: float,
    violations: Sequence[Reason] = (),
) -> Judgement:
    """Accept only where nothing speaks against it; otherwise flag, with every reason.

    ``lines`` holds one calibration per ensemble size. A larger ensemble than any of them uses the largest one's
    (its NQM is a little higher, so the error is on the safe side); a smaller one cannot be judged by NQM.
    ``violations`` are breaches of the model's input contract found before.
    """
    line = max((one for one in lines if one.members <= evidence.members), key=lambda one: one.members, default=None)
    reasons = [*violations, *_mask_reasons(evidence, volume_ml_range)]
    if line is None:
        reasons.append(
            Reason("ensemble_too_small", f"NQM is not calibrated for an ensemble of {evidence.members} members")
        )
        return Judgement("flag", tuple(reasons), None, None)
    threshold = line.threshold(min_dice)
    predicted = None if evidence.nqm is None else line.predicted_dice(evidence.nqm)
    if evidence.nqm is not None and not evidence.nqm <= threshold:
        reasons.append(
            Reason(
                "nqm_above_threshold",
                f"NQM {evidence.nqm:.3f} is above {threshold:.3f}, so the Dice predicted is below {min_dice:g}",
            )
        )
    return Judgement("flag" if reasons else "accept", tuple(reasons), predicted, threshold)


def _mask_reasons(evidence: Evidence, volume_ml_range: tuple[float, float]) -> list[Reason]:
    """What speaks against the mask itself, NQM's size aside."""
    if not evidence.finite:
        return [Reason("not_finite", "the network produced values that are not finite")]
    reasons = []
    low, high = volume_ml_range
    if evidence.nqm is None:
        reasons.append(Reason("nqm_undefined", "the ensemble found nothing at all, so NQM is undefined"))
    if evidence.volume_ml == 0.0:
        reasons.append(Reason("empty_mask", "the mask is empty"))
    elif not low <= evidence.volume_ml <= high:
        reasons.append(
            Reason(
                "volume_implausible",
                f"the mask has {evidence.volume_ml:.2f} ml; between {low:.2f} and {high:.2f} ml was expected",
            )
        )
    return reasons
