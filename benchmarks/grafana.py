"""A Grafana dashboard drawn with matplotlib: its panels in their places, with Prometheus' answers to their queries."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, Locator, MaxNLocator, MultipleLocator
from numpy.typing import NDArray

from benchmarks.prometheus import Prometheus, concrete

INTERVAL, WINDOW = "15s", "60s"
STEPS = 300
COLUMNS = 24
CELL = (0.78, 0.4)
"""Inches of a cell of Grafana's grid."""
TITLE = 0.5
DPI = 110
COLOURS = ("#0b6e4f", "#e08e45", "#3a6ea5", "#c8553d", "#7a5195", "#5fb49c", "#b8a13c", "#6d6875", "#d183a9", "#4b4b4b")
NAMED = {"green": "#0b6e4f", "orange": "#e08e45", "red": "#c8553d", "blue": "#3a6ea5", "gray": "#a7a9ac"}
TINTS = {"green": "#d7efe3", "orange": "#fbe3c8", "red": "#f6cfc8"}
ALERT = "#c8553d"
MINUTES = (15, 30, 60, 120, 300, 600)
"""Steps of an axis of seconds."""
LEGEND_MAX = 9
LEGEND_CHARACTERS = 100
ALERTS = 'max(ALERTS{alertstate="firing",alertname=~"Ncagate.*"})'

Series = tuple[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Span:
    """The time that is drawn, in seconds since the epoch."""

    start: float
    end: float

    @property
    def seconds(self) -> NDArray[np.float64]:
        """From the start, at every step."""
        return np.linspace(0.0, self.end - self.start, STEPS)


def draw_dashboard(dashboard: Path, prometheus: Prometheus, *, start: float, end: float, picture: Path) -> None:
    """Draw all panels into a PNG; times when an alert fired are shaded."""
    model = json.loads(dashboard.read_text(encoding="utf-8"))
    span, rows = Span(start, end), max(one["gridPos"]["y"] + one["gridPos"]["h"] for one in model["panels"])
    height = rows * CELL[1] + TITLE
    figure = Figure(figsize=(COLUMNS * CELL[0], height), facecolor="#f3f4f5")
    figure.text(0.008, 1 - 0.3 / height, model["title"], size=15, weight="bold", va="center")
    about = f"{(end - start) / 60:.0f} min, rates over {INTERVAL}, windows of {WINDOW}; shaded: an alert fires"
    figure.text(0.992, 1 - 0.3 / height, about, size=9, color="#555555", va="center", ha="right")
    firing = _series(prometheus, {"expr": ALERTS, "legendFormat": ""}, span)
    for panel in model["panels"]:
        _draw(figure, panel, [one for target in panel["targets"] for one in _series(prometheus, target, span)], span)
        if panel["type"] == "timeseries":
            _shade(figure.axes[-1], firing, span)
    FigureCanvasAgg(figure)
    figure.savefig(picture, dpi=DPI)


def _series(prometheus: Prometheus, target: Mapping[str, Any], span: Span) -> list[Series]:
    """Names and values of a query, NaN where there are none."""
    expression = concrete(target["expr"], interval=INTERVAL, window=WINDOW)
    step = (span.end - span.start) / (STEPS - 1)
    found = []
    for one in prometheus.over(expression, start=span.start, end=span.end, step=step):
        values = np.full(STEPS, np.nan)
        for at, value in one["values"]:
            values[min(round((float(at) - span.start) / step), STEPS - 1)] = float(value)
        found.append((_legend(target["legendFormat"], one["metric"]), values))
    return found


def _legend(template: str, labels: Mapping[str, str]) -> str:
    """Grafana's `{{label}}` filled in; what names this machine is left out."""
    name = re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), template)
    return name.partition("@")[0]


def _draw(figure: Figure, panel: Mapping[str, Any], series: Sequence[Series], span: Span) -> None:
    place, (width, height) = panel["gridPos"], figure.get_size_inches()
    left, top = place["x"] / COLUMNS, 1 - (TITLE + place["y"] * CELL[1]) / height
    wide, high = place["w"] / COLUMNS, place["h"] * CELL[1] / height
    gap = (0.05 / width, 0.05 / height)
    card = figure.add_axes((left + gap[0], top - high + gap[1], wide - 2 * gap[0], high - 2 * gap[1]))
    card.set(xticks=[], yticks=[], facecolor="white")
    card.spines[:].set_color("#d5d7da")
    card.text(
        0.1 / (place["w"] * CELL[0]),
        1 - 0.2 / (place["h"] * CELL[1]),
        panel["title"],
        size=10,
        weight="bold",
        va="center",
    )
    if panel["type"] == "stat":
        _stat(card, panel, series)
        return
    inner = (left + 0.8 / width, top - high + 0.75 / height, wide - 0.95 / width, high - 1.15 / height)
    axes = figure.add_axes(inner)
    if panel["type"] == "heatmap":
        _heatmap(axes, series, span)
        axes.yaxis.set_tick_params(labelsize=7)
    else:
        _lines(axes, panel, series, span)
    axes.set_xlim(0, span.end - span.start)
    axes.xaxis.set_major_locator(MultipleLocator(max(60 * round((span.end - span.start) / 300), 15)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{int(x // 60)}:{int(x % 60):02}"))
    axes.tick_params(labelsize=8, colors="#555555", length=2)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.spines[:].set_color("#c5c7ca")


def _stat(card: Axes, panel: Mapping[str, Any], series: Sequence[Series]) -> None:
    """The last value; its background by the thresholds."""
    defaults = panel["fieldConfig"]["defaults"]
    name, values = series[0] if series else ("", np.full(1, np.nan))
    known = values[~np.isnan(values)]
    last = float(known[-1]) if known.size else math.nan
    text = name if panel["options"].get("textMode") == "name" else _unit(defaults)(last)
    for step in defaults.get("thresholds", {}).get("steps", []):
        if step["value"] is None or last >= step["value"]:
            card.set_facecolor(TINTS[step["color"]])
    card.text(0.5, 0.42, text, size=24, ha="center", va="center", transform=card.transAxes)


def _lines(axes: Axes, panel: Mapping[str, Any], series: Sequence[Series], span: Span) -> None:
    defaults, known = panel["fieldConfig"]["defaults"], [one for one in series if not np.isnan(one[1]).all()]
    names, values = [one[0] for one in known], [one[1] for one in known]
    colours = _colours(panel, names)
    if defaults["custom"]["stacking"]["mode"] == "normal" and values:
        filled = [np.nan_to_num(one) for one in values]
        axes.stackplot(span.seconds, filled, labels=names, colors=colours, alpha=0.75, linewidth=0)
    else:
        for colour, name, one in zip(colours, names, values, strict=True):
            axes.plot(span.seconds, one, label=name, color=colour, linewidth=1.4)
    highest = max((float(np.nanmax(one)) for one in values), default=0.0)
    for step in defaults.get("thresholds", {}).get("steps", []):
        if step["value"] is not None:
            axes.axhline(step["value"], color=step["color"], linestyle="--", linewidth=1)
            highest = max(highest, step["value"])
    low, high = axes.get_ylim()
    low, high = defaults.get("min", low), 1.02 * high if highest else 1.0
    axes.set_ylim(low, min(high, defaults.get("max", high)))
    axes.yaxis.set_major_locator(_ticks(high, defaults["unit"]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: _unit(defaults)(y)))
    axes.grid(alpha=0.3)
    handles, labels = axes.get_legend_handles_labels()
    columns = max(LEGEND_CHARACTERS // (max(map(len, labels), default=0) + 6), 1)
    axes.legend(
        handles[:LEGEND_MAX],
        labels[:LEGEND_MAX],
        loc="upper left",
        bbox_to_anchor=(-0.12, -0.12),
        ncols=columns,
        frameon=False,
        fontsize=7.5,
        columnspacing=1.0,
        handlelength=1.0,
    )


def _colours(panel: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """Those that the panel gives to names, and the others of the palette in turn."""
    fixed = {
        one["matcher"]["options"]: NAMED[one["properties"][0]["value"]["fixedColor"]]
        for one in panel["fieldConfig"]["overrides"]
    }
    return [fixed.get(name, COLOURS[number % len(COLOURS)]) for number, name in enumerate(names)]


def _ticks(high: float, unit_name: str) -> Locator:
    """Round numbers in the unit that is written."""
    if unit_name == "s" and high > MINUTES[0]:
        return MultipleLocator(min(MINUTES, key=lambda step: abs(high / step - 4)))
    if unit_name not in ("bytes", "Bps") or high < 1024:
        return MaxNLocator(5)
    unit = 1024 ** int(math.log(high, 1024))
    (*_, step) = (one for one in (1, 2, 5, 10, 20, 50, 100, 200) if one == 1 or one <= high / unit / 3)
    return MultipleLocator(step * unit if high / unit >= 3 else unit / 4)


def _heatmap(axes: Axes, series: Sequence[Series], span: Span) -> None:
    """Counts between neighbouring upper bounds."""
    ordered = sorted((one for one in series), key=lambda one: float(one[0]))
    cumulative = np.nan_to_num(np.array([values for _, values in ordered]))
    counts = np.clip(np.diff(cumulative, axis=0, prepend=0.0), 0.0, None)
    axes.pcolormesh(span.seconds, np.arange(len(ordered)), counts, cmap="Blues", shading="nearest")
    axes.set_yticks(range(0, len(ordered), 2), [f"≤ {name}" for name, _ in ordered[::2]])


def _shade(axes: Axes, firing: Sequence[Series], span: Span) -> None:
    for _, values in firing:
        low, high = axes.get_ylim()
        axes.fill_between(span.seconds, low, high, where=values > 0, color=ALERT, alpha=0.09, linewidth=0)
        axes.set_ylim(low, high)


def _unit(defaults: Mapping[str, Any]) -> Callable[[float], str]:
    """How a value is written."""
    return lambda value: "–" if math.isnan(value) else _UNITS[defaults["unit"]](value, defaults.get("decimals"))


def _seconds(value: float, decimals: int | None) -> str:
    for size, name in ((3600.0, "h"), (60.0, "min"), (1.0, "s")):
        if value >= size:
            return f"{value / size:.3g} {name}"
    return f"{value * 1000:.3g} ms" if value else "0"


def _bytes(value: float, decimals: int | None) -> str:
    for size, name in ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if value >= size:
            return f"{value / size:.3g} {name}"
    return f"{value:.3g} B"


def _plain(value: float, decimals: int | None) -> str:
    return f"{value:.3g}" if decimals is None else f"{value:.{decimals}f}"


_UNITS: Mapping[str, Callable[[float, int | None], str]] = {
    "none": _plain,
    "s": _seconds,
    "percentunit": lambda value, decimals: f"{100 * value:.{decimals or 0}f} %",
    "bytes": _bytes,
    "Bps": lambda value, decimals: f"{_bytes(value, decimals)}/s",
    "reqps": lambda value, decimals: f"{value:.3g}/s",
}
