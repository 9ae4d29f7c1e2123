"""How good a quality score is, by the field's measures (Zenk et al., Medical Image Analysis, 2025)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import roc_auc_score, roc_curve

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
TRUE_POSITIVE_RATE = 0.95
RESAMPLES = 300
INTERVAL = (2.5, 97.5)
"""Percentiles of the bootstrap that an interval spans."""


@dataclass(frozen=True, eq=False)
class Scored:
    """Masks with a score of their quality (higher is better), all arrays (n,).

    Attributes:
        scan: which scan each belongs to; a bootstrap draws scans, for the masks of one are not independent.
        predicted: Dice that the score predicts; None of a score that predicts none.
    """

    scan: Indices
    dice: Floats
    score: Floats
    predicted: Floats | None = None

    def part(self, chosen: Indices) -> Scored:
        """The masks of these indices."""
        predicted = None if self.predicted is None else self.predicted[chosen]
        return Scored(self.scan[chosen], self.dice[chosen], self.score[chosen], predicted)


@dataclass(frozen=True)
class Figure:
    """A measure's value and its 95 % bootstrap interval; None where it is undefined (in a resample)."""

    value: float | None
    low: float | None
    high: float | None


def auroc(scored: Scored, min_dice: float) -> float | None:
    """Area under the receiver operating characteristic for "has failed"; None without both kinds of mask."""
    failed = scored.dice < min_dice
    return float(roc_auc_score(failed, -scored.score)) if 0 < failed.sum() < len(failed) else None


def fpr95(scored: Scored, min_dice: float) -> float | None:
    """Share of the good masks flagged where 95 % of the failures are; None without both kinds of mask."""
    failed = scored.dice < min_dice
    if not 0 < failed.sum() < len(failed):
        return None
    false_positive, true_positive, _ = roc_curve(failed, -scored.score)
    return float(false_positive[np.argmax(true_positive >= TRUE_POSITIVE_RATE)])


def aurc(scored: Scored, min_dice: float) -> float:
    """Area under the risk-coverage curve, risk = 1 - Dice: the lower the better."""
    return _aurc(scored.score, 1 - scored.dice)


def eaurc(scored: Scored, min_dice: float) -> float:
    """`aurc` minus that of the best order there is."""
    return aurc(scored, min_dice) - _aurc(scored.dice, 1 - scored.dice)


def pearson(scored: Scored, min_dice: float) -> float:
    """Linear correlation of the score with Dice."""
    return float(stats.pearsonr(scored.score, scored.dice)[0])


def spearman(scored: Scored, min_dice: float) -> float:
    """Rank correlation of the score with Dice."""
    return float(stats.spearmanr(scored.score, scored.dice)[0])


def mae(scored: Scored, min_dice: float) -> float | None:
    """Mean absolute error of the predicted Dice; None of a score that predicts none."""
    return None if scored.predicted is None else float(np.abs(scored.predicted - scored.dice).mean())


MEASURES: Mapping[str, Callable[[Scored, float], float | None]] = {
    one.__name__: one for one in (auroc, fpr95, aurc, eaurc, pearson, spearman, mae)
}
"""Each given the masks and the Dice below which one has failed."""


def measure(scored: Scored, *, min_dice: float, seed: int = 0) -> dict[str, Figure]:
    """Every measure with its interval, from resamples of the scans with replacement."""
    resamples = [scored.part(chosen) for chosen in _resamples(scored.scan, seed)]
    figures = {}
    for name, one in MEASURES.items():
        values = [one(part, min_dice) for part in resamples]
        known = [value for value in values if value is not None]
        low, high = np.percentile(known, INTERVAL).tolist() if len(known) == len(values) else (None, None)
        figures[name] = Figure(one(scored, min_dice), low, high)
    return figures


def _resamples(scan: Indices, seed: int) -> list[Indices]:
    rng = np.random.default_rng(seed)
    order = np.argsort(scan, kind="stable")
    _, starts = np.unique(scan[order], return_index=True)
    groups = np.split(order, starts[1:])
    return [
        np.concatenate([groups[one] for one in rng.integers(0, len(groups), len(groups))]) for _ in range(RESAMPLES)
    ]


def _aurc(score: Floats, risk: Floats) -> float:
    """Mean over coverages 1/n .. 1 of the mean risk of the best-scored masks."""
    ordered = risk[np.argsort(-score, kind="stable")]
    return float(np.mean(np.cumsum(ordered) / np.arange(1, len(ordered) + 1)))
