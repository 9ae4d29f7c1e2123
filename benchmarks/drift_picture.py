"""How soon each change of scanner is noticed, as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

DPI = 130
COLOURS = ("#9ecae1", "#4292c6", "#084594")
"""Of the severities, from mild to severe."""


def draw_delays(delays: Mapping[str, Sequence[int]], *, streams: int, within: int, picture: Path) -> None:
    """Draw the share of streams with an alarm against the scans since the change, a panel a kind, into a PNG."""
    kinds = list(dict.fromkeys(change.rsplit(" ", 1)[0] for change in delays))
    figure = Figure(figsize=(11, 5.2), layout="constrained")
    panels = figure.subplots(2, -(-len(kinds) // 2), sharex=True, sharey=True)
    scans = np.arange(within + 1)
    for panel, kind in zip(panels.flat, kinds, strict=False):
        own = [change for change in delays if change.startswith(f"{kind} ")]
        for change, colour in zip(own, COLOURS, strict=False):
            seen = np.searchsorted(np.sort(delays[change]), scans, side="right") / streams
            panel.step(scans, seen, where="post", color=colour, label=f"severity {change.rsplit(' ', 1)[1]}")
        panel.set(title=kind, xlim=(0, within), ylim=(-0.02, 1.02))
        panel.grid(alpha=0.3)
    panels.flat[0].legend(frameon=False, loc="lower right")
    figure.supxlabel("scans since the change")
    figure.supylabel("streams with an alarm")
    FigureCanvasAgg(figure)
    figure.savefig(picture, dpi=DPI)
