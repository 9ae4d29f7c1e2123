"""The results as pictures: the roofline, and time against work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from math import atan, degrees
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from benchmarks.engines import COMPILED, NATIVE, PUBLISHED, TORCH
from benchmarks.roofs import Roofs
from benchmarks.rows import Row, best_roofs
from benchmarks.scaling import SCALING, SCALING_FIT

DPI = 150
COLOURS = dict(
    zip((*NATIVE, COMPILED, TORCH, PUBLISHED), ("#0b6e4f", "#5fb49c", "#e08e45", "#c8553d", "#6d6875"), strict=True)
)
SPREAD = 0.1
"""Between engines of a case, of the distance between cases."""
SHARES = (1, 2, 5, 10, 20, 50, 100)
THREAD_COLOURS = ("#c8553d", "#0b6e4f", "#6d6875")
MARKERS = ("o", "s", "D", "^", "v", "P", "X")


def draw_roofline(rows: Sequence[Row], *, picture: Path) -> None:
    """Draw useful floating point operations a second under the best roofs: against those a byte, and by case."""
    chosen = [row for row in rows if not row.case.startswith(SCALING) and row.threads == rows[0].threads]
    names = list(dict.fromkeys(row.case for row in chosen))
    markers = dict(zip(names, cycle(MARKERS), strict=False))
    figure = Figure(figsize=(13, 5.6), layout="constrained")
    roofline, by_case = figure.subplots(1, 2, sharey=True)
    roofline.set(xscale="log", yscale="log", xlim=(2, 200))
    _draw_roofs(roofline, by_case, best_roofs(rows))
    for row in chosen:
        beside = names.index(row.case) + SPREAD * (list(COLOURS).index(row.engine) - len(COLOURS) // 2)
        for axes, x in ((roofline, row.flops_per_byte), (by_case, beside)):
            _point(axes, x, row.flops_per_s / 1e9, colour=COLOURS[row.engine], marker=markers[row.case])
    _keys(roofline, {row.engine: COLOURS[row.engine] for row in chosen}, markers, colours_at="lower left")
    by_case.set_xticks(range(len(names)), [name.replace(" ", "\n", 1) for name in names])
    by_case.set(title="the same by case", xlim=(-0.6, len(names) - 0.4))
    by_case.grid(alpha=0.25)
    roofline.set(
        title=f"Roofline of {chosen[0].threads} threads (only the work of cells that fire counts)",
        xlabel="useful FLOP a byte (every state read once a step, fired ones written once)",
        ylabel="useful GFLOP/s (roof: float32)",
    )
    _save(figure, picture)


def draw_scaling(rows: Sequence[Row], *, picture: Path) -> None:
    """Draw time against voxels times steps times members with the fitted line of every number of threads."""
    points = [row for row in rows if row.case.startswith(SCALING) and row.case != SCALING_FIT]
    fits = [row for row in rows if row.case == SCALING_FIT]
    colours = dict(zip((row.threads for row in fits), THREAD_COLOURS, strict=False))
    markers = dict(zip(dict.fromkeys(row.case for row in points), MARKERS, strict=False))
    figure = Figure(figsize=(9.5, 5.6), layout="constrained")
    axes = figure.subplots()
    axes.set(xscale="log", yscale="log")
    for row in points:
        _point(axes, row.further["voxel_steps"], row.ms, colour=colours[row.threads], marker=markers[row.case])
    work = np.geomspace(*(f(row.further["voxel_steps"] for row in points) for f in (min, max)))
    for row in fits:
        line = row.further["intercept_ms"] + row.further["ms_per_million_voxel_steps"] * work / 1e6
        axes.plot(work, np.where(line > 0, line, np.nan), color=colours[row.threads], alpha=0.6, zorder=1)
    varied = {f"{case.removeprefix(SCALING).strip()} varied": marker for case, marker in markers.items()}
    _keys(axes, {_fit_label(row): colours[row.threads] for row in fits}, varied)
    axes.set(
        title=f"Engine {fits[0].engine}: time against work, with fitted lines",
        xlabel="voxels × steps × members",
        ylabel="milliseconds",
    )
    _save(figure, picture)


def _draw_roofs(roofline: Axes, by_case: Axes, roofs: Roofs) -> None:
    """Both roofs on the left; on the right the roof of arithmetic, and an axis of shares of it."""
    if roofs.multiply_adds_per_s is None or roofs.bytes_per_s is None:
        return
    peak, bandwidth = 2 * roofs.multiply_adds_per_s / 1e9, roofs.bytes_per_s / 1e9
    left, right = roofline.get_xlim()
    x, y = [left, peak / bandwidth, right], [left * bandwidth, peak, peak]
    roofline.plot(x, y, color="0.2", zorder=1)
    roofline.fill_between(x, y, 1e6, color="0.94", zorder=0)
    roofline.set_ylim(peak / 200, peak * 2)
    roofline.text(right * 0.95, peak * 1.08, f"multiply-adds: {peak:.0f} GFLOP/s", ha="right", color="0.2")
    roofline.text(
        left * 1.25,
        left * 1.4 * bandwidth,
        f"memory: {bandwidth:.0f} GB/s",
        color="0.2",
        rotation=degrees(atan(bandwidth)),
        rotation_mode="anchor",
        transform_rotates_text=True,
    )
    by_case.axhspan(peak, 1e6, color="0.94", zorder=0)
    by_case.axhline(peak, color="0.2", zorder=1)
    shares = by_case.twinx()
    shares.set(yscale="log", ylim=(0.5, 200), ylabel="% of the peak of multiply-adds (float32)")
    shares.set_yticks(SHARES, [str(share) for share in SHARES], minor=False)
    shares.minorticks_off()


def _point(axes: Axes, x: float, y: float, *, colour: str, marker: str) -> None:
    axes.plot(x, y, linestyle="", marker=marker, markersize=9, color=colour, markeredgecolor="white", alpha=0.9)


def _keys(
    axes: Axes,
    colours: Mapping[str, str],
    markers: Mapping[str, str],
    *,
    colours_at: Literal["upper left", "lower left"] = "upper left",
) -> None:
    """Two legends: what the colours mean, and what the markers mean."""
    lines = [Line2D([], [], color=colour, linewidth=4, label=name) for name, colour in colours.items()]
    shapes = [
        Line2D([], [], color="0.4", linestyle="", marker=one, markersize=8, label=name) for name, one in markers.items()
    ]
    axes.add_artist(axes.legend(handles=lines, loc=colours_at, fontsize=9))
    axes.legend(handles=shapes, loc="lower right", fontsize=9)
    axes.grid(alpha=0.25)
    axes.spines["top"].set_visible(False)


def _fit_label(row: Row) -> str:
    fitted = row.further
    return (
        f"{row.threads} thread{'s' * (row.threads > 1)}: {fitted['ms_per_million_voxel_steps']:.1f} ms a million, "
        f"R² {fitted['r_squared']:.4f}"
    )


def _save(figure: Figure, picture: Path) -> None:
    FigureCanvasAgg(figure)
    figure.savefig(picture, dpi=DPI)
