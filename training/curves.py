"""The pictures of a run: its curves, and Dice against NQM with the line drawn through it."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from nca.quality import Line
from training.judged import Outcome

WINDOW = 50
"""Iterations over which a curve is smoothed."""
DPI = 130


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
    _save(figure, picture)


def draw_calibration(
    calibration: Sequence[Outcome],
    validation: Sequence[Outcome],
    *,
    line: Line,
    min_dice: float,
    picture: Path,
) -> None:
    """Draw Dice against NQM of both parts, the line, the limit and its threshold into a PNG (seed, figure 7)."""
    figure = Figure(figsize=(7.5, 5), layout="constrained")
    axes = figure.subplots()
    _scatter(axes, calibration, label="calibration (training scans, clean and spiked)", color="0.7", marker=".")
    colours = {"clean": "tab:green", "noise": "tab:blue", "spike": "tab:orange", "ghosting": "tab:red"}
    for condition, colour in colours.items():
        chosen = [one for one in validation if one.condition == condition]
        _scatter(axes, chosen, label=f"validation, {condition}", color=colour, marker="o")
    right = max((one.nqm or 0.0) for one in (*calibration, *validation)) * 1.02
    grid = np.linspace(0.0, right, 50)
    axes.plot(grid, [line.predicted_dice(x) for x in grid], color="black", label="predicted Dice")
    axes.axhline(min_dice, color="0.4", linestyle=":")
    axes.axvline(line.threshold(min_dice), color="0.4", linestyle="--", label="NQM threshold")
    axes.set(xlabel="NQM", ylabel="Dice", xlim=(0, right), ylim=(0, 1), title="Dice against NQM")
    axes.legend(fontsize=8)
    _save(figure, picture)


def _scatter(axes: object, outcomes: Sequence[Outcome], **style: object) -> None:
    points = [(one.nqm, one.dice) for one in outcomes if one.nqm is not None]
    axes.scatter([x for x, _ in points], [y for _, y in points], s=14, alpha=0.7, **style)  # type: ignore[attr-defined]


def _save(figure: Figure, picture: Path) -> None:
    FigureCanvasAgg(figure)
    figure.savefig(picture, dpi=DPI)
