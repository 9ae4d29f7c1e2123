"""From what is seen of a mask to its predicted Dice: the paper's line from NQM, and a small regression over more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nca.errors import UncalibratableError
from nca.evidence import Evidence

MIN_POINTS = 10
"""Fewest outcomes from which a line or a regression is drawn."""
RIDGE = 0.01
"""Weight of the squared weights in a regression: its figures say nearly the same, and must not be played off."""

Floats = NDArray[np.float64]


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
class Regression:
    """Predicted Dice: ``intercept`` plus ``weights`` times the figures, each clipped to the range seen and scaled.

    Attributes:
        names: of the figures (`nca.evidence.Evidence`).
        low, high: what each figure is clipped to: no figure speaks louder than calibration ever heard it.
        centre, scale: what each is standardised by.
    """

    names: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    centre: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    intercept: float

    def predicted_dice(self, evidence: Evidence) -> float:
        """The Dice that the evidence predicts, clipped to 0 .. 1."""
        figures = np.clip(evidence.vector(self.names), self.low, self.high)
        scaled = (figures - self.centre) / self.scale
        return float(np.clip(self.intercept + scaled @ np.array(self.weights), 0.0, 1.0))


def fit_regression(names: Sequence[str], figures: Floats, dices: Floats) -> Regression:
    """Ridge regression from ``figures`` (n, len(names)) to ``dices`` (n,).

    Raises:
        UncalibratableError: fewer than 10 outcomes, or all of the same Dice.
    """
    if len(dices) < MIN_POINTS or dices.std() == 0.0:
        raise UncalibratableError(f"{len(dices)} outcomes with {dices.std():.3g} spread of Dice give no regression")
    centre, scale = figures.mean(0), figures.std(0)
    scale[scale == 0.0] = 1.0  # a figure that never varied says nothing
    scaled = np.column_stack([(figures - centre) / scale, np.ones(len(dices))])
    penalty = RIDGE * len(dices) * np.diag([*np.ones(len(names)), 0.0])
    *weights, intercept = np.linalg.solve(scaled.T @ scaled + penalty, scaled.T @ dices).tolist()
    return Regression(
        names=tuple(names),
        low=tuple(figures.min(0).tolist()),
        high=tuple(figures.max(0).tolist()),
        centre=tuple(centre.tolist()),
        scale=tuple(scale.tolist()),
        weights=tuple(weights),
        intercept=intercept,
    )
