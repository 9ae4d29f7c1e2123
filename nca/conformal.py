"""What calibration outcomes guarantee: a threshold with a stated risk, and an interval of the true Dice."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import ceil, exp, floor, log, log1p, sqrt

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.9
"""Probability, over the draw of the calibration scans, with which the stated risk holds."""
COVERAGE = 0.9
"""Share of masks whose true Dice lies in its interval."""
BINS = 8
"""Groups of similar predicted Dice within which an interval is drawn."""
START = 0.3
"""Share of the calibration outcomes accepted by the strictest threshold that is tried."""
STEPS = 60
"""Thresholds tried between the strictest and the loosest."""
PRIOR_MEAN, PRIOR_VARIANCE = 0.5, 0.25
"""What is believed of losses between 0 and 1 before the first was seen; counts as one scan."""
ROUNDING = 1e-9
"""A rank this close to a whole number is one."""
STAKE_MAX = 0.9
"""Largest share of the capital that a single loss may take."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Calibrated:
    """Outcomes on scans that the network that judged them was not trained on; arrays (n,).

    Attributes:
        scan: which scan each belongs to, as a number from 0: outcomes of one scan are not independent.
        predicted: the Dice that was predicted; 0 where there was no evidence to predict it from.
        dice: the true one.
        refused: bool, whether the mask would be flagged whatever its predicted Dice (contract, volume, border).
    """

    scan: NDArray[np.int64]
    predicted: Floats
    dice: Floats
    refused: NDArray[np.bool_]

    def threshold(self, *, min_dice: float, alpha: float, confidence: float = CONFIDENCE) -> float | None:
        """Smallest predicted Dice to accept so that P(Dice < min_dice | accepted) <= ``alpha``; None if none is sure.

        With probability ``confidence`` over the draw of the calibration scans the risk is at most ``alpha`` on scans
        and conditions like theirs; every scan counts once, however many of its conditions are accepted, for scans are
        what is independent. Thresholds are tried from the strictest down (fixed sequence, Angelopoulos et al., *Learn
        then Test*, 2021) while a betting test finds the mean loss below alpha (Waudby-Smith and Ramdas, 2024).
        """
        asked = (min_dice, alpha, confidence)
        if asked not in self._thresholds:
            self._thresholds[asked] = self._search(min_dice, alpha, confidence)
        return self._thresholds[asked]

    def _search(self, min_dice: float, alpha: float, confidence: float) -> float | None:
        eligible = self.predicted[~self.refused]
        if not len(eligible):
            return None
        best = None
        for threshold in np.linspace(np.quantile(eligible, 1 - START), eligible.min(), STEPS):
            losses = self._losses((self.predicted >= threshold) & ~self.refused, min_dice)
            if _p_value(losses, alpha, confidence) > 1 - confidence:
                break
            best = float(threshold)
        return best

    def interval(self, predicted: float, *, coverage: float = COVERAGE) -> tuple[float, float]:
        """Range of the true Dice with this ``coverage``, from the calibration outcomes of similar predicted Dice.

        Split conformal within bins of the predicted Dice (Mondrian; Vovk et al., 2005), equal-tailed.
        """
        edges = self._edges
        group = self.dice[np.searchsorted(edges, self.predicted) == np.searchsorted(edges, predicted)]
        tail = (1 - coverage) / 2
        ordered = np.sort(group)
        low = floor((len(ordered) + 1) * tail + ROUNDING)
        high = ceil((len(ordered) + 1) * (1 - tail) - ROUNDING)
        return (
            float(ordered[low - 1]) if low >= 1 else 0.0,
            float(ordered[high - 1]) if high <= len(ordered) else 1.0,
        )

    @cached_property
    def _thresholds(self) -> dict[tuple[float, float, float], float | None]:
        """Those found before: the search takes milliseconds, and a version is asked the same again and again."""
        return {}

    @cached_property
    def _edges(self) -> Floats:
        """Borders between the bins: quantiles of the predicted Dice."""
        edges: Floats = np.unique(np.quantile(self.predicted, np.linspace(0, 1, BINS + 1)[1:-1]))
        return edges

    def _losses(self, accepted: NDArray[np.bool_], min_dice: float) -> Floats:
        """Of each scan with an accepted outcome: the share of these that failed."""
        counts = np.bincount(self.scan, weights=accepted)
        failed = np.bincount(self.scan, weights=accepted & (self.dice < min_dice))
        shares: Floats = failed[counts > 0] / counts[counts > 0]
        return shares


def _p_value(losses: Floats, alpha: float, confidence: float) -> float:
    """Of the hypothesis that independent ``losses`` between 0 and 1 have a mean of ``alpha`` or more.

    The capital of a gambler who bets on every loss being below alpha, in turn, with stakes that look back only: the
    predictable plug-in of Waudby-Smith and Ramdas for a sample of known size.
    """
    goal = 2 * log(1 / (1 - confidence)) / len(losses)
    log_capital, best = 0.0, 0.0
    total, squares = PRIOR_MEAN, PRIOR_VARIANCE
    for seen, loss in enumerate(losses.tolist(), start=1):
        stake = min(sqrt(goal / (squares / seen)), STAKE_MAX / (1 - alpha))
        log_capital += log1p(-stake * (loss - alpha))
        best = max(best, log_capital)
        total += loss
        squares += (loss - total / (seen + 1)) ** 2
    return exp(-best)
