"""Pictures: a run's curves, Dice against NQM and against its prediction, scans with masks and uncertainty."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from nca.gate import Gate, Policy
from nca.regression import Line
from training.evaluate import Judged
from training.outcomes import Outcome

WINDOW = 50
"""Iterations over which a curve is smoothed."""
DPI = 130
RIGHT = 1.0
"""Largest NQM drawn: beyond it there are only masks of a few voxels."""
COLOURS = {"clean": "tab:green", "noise": "tab:blue", "spike": "tab:orange", "ghosting": "tab:red"}
OTHER = "tab:purple"
MISSED, RAISED = "#d62728", "#ff7f0e"


@dataclass(frozen=True, eq=False)
class ShownScan:
    """A scan to be drawn: image, truth, mask and standard deviation, all (x, y, z) of one grid."""

    title: str
    image: NDArray[np.floating]
    truth: NDArray[np.bool_]
    mask: NDArray[np.bool_]
    deviation: NDArray[np.floating]


def draw_curves(metrics: Path, picture: Path) -> None:
    """Draw loss, Dice and learning rate of a metrics.csv into a PNG."""
    with metrics.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    iteration = np.array([int(row["iteration"]) for row in rows])
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    for axes, name in zip(figure.subplots(1, 3), ("loss", "dice", "learning_rate"), strict=True):
        values = np.array([float(row[name]) for row in rows])
        axes.plot(iteration, values, color="0.85", linewidth=0.5)
        if len(values) >= WINDOW:
            smooth = np.convolve(values, np.ones(WINDOW) / WINDOW, mode="valid")
            axes.plot(iteration[WINDOW - 1 :], smooth, color="tab:blue")
        axes.set(title=name.replace("_", " "), xlabel="iteration")
        axes.grid(alpha=0.3)
    picture.write_bytes(_png(figure))


def draw_calibration(
    calibration: Sequence[Outcome], validation: Sequence[Outcome], *, line: Line, min_dice: float, picture: Path
) -> None:
    """Draw Dice against NQM of both parts, the line, the limit and its threshold into a PNG (seed, figure 7)."""
    figure = Figure(figsize=(7.5, 5), layout="constrained")
    axes = figure.subplots()
    _nqm_points(axes, calibration, label="calibration (held out from other networks)", color="0.75", marker=".")
    for kind, colour in COLOURS.items():
        chosen = [one for one in validation if one.condition.kind == kind]
        _nqm_points(axes, chosen, label=f"validation, {kind}", color=colour, marker="o")
    others = [one for one in validation if one.condition.kind not in COLOURS]
    _nqm_points(axes, others, label="validation, other damage", color=OTHER, marker="x")
    grid = np.linspace(0.0, RIGHT, 50)
    axes.plot(grid, [line.predicted_dice(x) for x in grid], color="black", label="predicted Dice")
    axes.axhline(min_dice, color="0.4", linestyle=":")
    axes.axvline(line.threshold(min_dice), color="0.4", linestyle="--", label="NQM threshold")
    axes.set(xlabel="NQM", ylabel="Dice", xlim=(0, RIGHT), ylim=(0, 1), title="Dice against NQM")
    axes.legend(fontsize=8)
    picture.write_bytes(_png(figure))


def draw_quadrants(judged: Sequence[Judged], gate: Gate, policy: Policy) -> bytes:
    """A PNG of true against predicted Dice with the limit, the threshold and the four quadrants (seed, figure 7)."""
    known = [one for one in judged if one.judgement.predicted_dice is not None]
    predicted = np.array([one.judgement.predicted_dice for one in known], dtype=np.float64)
    dices, flagged = (np.array(one) for one in ([one.outcome.dice for one in known], [one.flagged for one in known]))
    failed = dices < policy.min_dice
    figure = Figure(figsize=(7.5, 5.5), layout="constrained")
    axes = figure.subplots()
    for part, colour, text in (
        (~failed & ~flagged, COLOURS["clean"], "accepted"),
        (failed & flagged, COLOURS["noise"], "failed and flagged"),
        (~failed & flagged, RAISED, "flagged though good (false alarm)"),
        (failed & ~flagged, MISSED, "failed though accepted (missed)"),
    ):
        axes.scatter(predicted[part], dices[part], s=14, alpha=0.6, color=colour, label=f"{part.sum()} {text}")
    axes.axhline(policy.min_dice, color="0.4", linestyle=":")
    required = gate.required_dice(policy)
    if required is not None:
        axes.axvline(required, color="0.4", linestyle="--")
    axes.plot([0, 1], [0, 1], color="0.8", linewidth=0.8)
    axes.set(xlabel="predicted Dice", ylabel="true Dice", xlim=(0, 1), ylim=(0, 1.02))
    axes.legend(fontsize=8, loc="upper left")
    return _png(figure)


def draw_scans(shown: Sequence[ShownScan]) -> bytes:
    """A PNG with a row per scan: the middle of the truth, both outlines, the uncertainty (seed, figures 3 and 6)."""
    figure = Figure(figsize=(9, 2.9 * len(shown)), layout="constrained")
    for row, one in zip(np.atleast_2d(figure.subplots(len(shown), 3)), shown, strict=True):
        at = int(np.argmax(one.truth.sum(axis=(0, 1)))) if one.truth.any() else one.image.shape[2] // 2
        image, truth, mask, deviation = (
            np.asarray(part[:, :, at], dtype=np.float64).T for part in (one.image, one.truth, one.mask, one.deviation)
        )
        low, high = np.percentile(one.image, (1, 99))
        for axes in row:
            axes.imshow(image, cmap="gray", vmin=low, vmax=high, origin="lower")
            axes.set_axis_off()
        _outline(row[1], truth, "lime")
        _outline(row[1], mask, "red")
        row[2].imshow(deviation, cmap="inferno", vmin=0.0, vmax=0.5, alpha=0.75, origin="lower")
        row[0].set_title(one.title, fontsize=8, loc="left")
        row[1].set_title("truth green, mask red", fontsize=8)
        row[2].set_title("standard deviation, 0 to 0.5", fontsize=8)
    return _png(figure)


def _outline(axes: Any, mask: NDArray[np.float64], colour: str) -> None:
    if mask.any():
        axes.contour(mask, levels=[0.5], colors=[colour], linewidths=1.0)


def _nqm_points(axes: Any, outcomes: Sequence[Outcome], **style: object) -> None:
    points = [(one.observed.nqm, one.dice) for one in outcomes if one.observed.nqm is not None]
    axes.scatter([x for x, _ in points], [y for _, y in points], s=14, alpha=0.7, **style)


def _png(figure: Figure) -> bytes:
    FigureCanvasAgg(figure)
    data = io.BytesIO()
    figure.savefig(data, dpi=DPI, format="png")
    return data.getvalue()
