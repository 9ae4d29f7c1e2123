"""What a training job shows on the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column, Table

from training.loop import Report
from training.measures import MEASURES, Figure

SMOOTHING = 0.98
"""Weight of the past in the loss and Dice that the progress bar shows."""
LINE_EVERY = 100
"""Iterations between two lines of the log where the output is not a terminal."""

WIDTH = 165
"""Columns of a log: tables are not broken where nobody resizes a window."""

console = Console(width=None if sys.stdout.isatty() else WIDTH)
Advance = Callable[..., None]


@contextmanager
def progress(what: str, total: int, *, done: int = 0) -> Iterator[Advance]:
    """A bar with the time left; calling what it gives advances by one."""
    columns = (
        TextColumn("{task.description:18}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[text]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    if not console.is_terminal:
        console.print(f"{what}: {total - done} to do")
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total, completed=done, text="")
        yield lambda text="": bar.update(task, advance=1, text=text)


def shown(advance: Advance) -> Callable[[Report], None]:
    """Show every report's loss and Dice, smoothed; a line now and then where nobody sees a bar."""
    smooth = {"loss": 0.0, "dice": 0.0, "weight": 0.0}

    def show(report: Report) -> None:
        smooth["weight"] = SMOOTHING * smooth["weight"] + 1 - SMOOTHING
        for name, value in (("loss", report.loss), ("dice", report.dice)):
            smooth[name] = SMOOTHING * smooth[name] + (1 - SMOOTHING) * value
        text = f"loss {smooth['loss'] / smooth['weight']:.3f}  Dice {smooth['dice'] / smooth['weight']:.3f}"
        advance(text)
        if not console.is_terminal and report.iteration % LINE_EVERY == 0:
            console.print(f"iteration {report.iteration}  {text}  {report.seconds:.0f} s")

    return show


DETECTION_HEAD = (
    "condition", "outcomes", "Dice", "lowest", "failed", "found", "missed", "false alarms", "failed of accepted",
    "in interval",
)  # fmt: skip


def detection_rows(figures: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """`training.evaluate.Detection` as plain figures -> rows under `DETECTION_HEAD`, one a group of conditions."""
    return [
        (
            group,
            str(one["outcomes"]),
            f"{one['dice_mean']:.3f} ± {one['dice_sd']:.3f}",
            f"{one['dice_min']:.3f}",
            str(one["failures"]),
            f"{one['detected']} ({share(one['detected_share'])})",
            str(one["false_negatives"]),
            f"{one['false_positives']} ({share(one['false_positive_share'])})",
            share(one["risk"]),
            share(one["coverage"]),
        )
        for group, one in figures.items()
    ]


def quality_rows(scores: Mapping[str, Mapping[str, Figure]]) -> list[tuple[str, ...]]:
    """Every measure of every quality score, with its 95 % interval: rows under "score" and the measures' names."""
    return [(score, *(figure_text(one) for one in figures.values())) for score, figures in scores.items()]


def detections(title: str, figures: Mapping[str, Mapping[str, Any]]) -> Table:
    """`detection_rows` for the terminal."""
    return _table(title, DETECTION_HEAD, detection_rows(figures))


def qualities_table(structure: str, scores: Mapping[str, Mapping[str, Figure]]) -> Table:
    """`quality_rows` for the terminal."""
    return _table(f"{structure}, scores", ("score", *MEASURES), quality_rows(scores))


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    first, *numbers = head
    table = Table(first, *(Column(one, justify="right") for one in numbers), title=title, box=None)
    for row in rows:
        table.add_row(*row)
    return table


def figure_text(figure: Figure) -> str:
    """A measure's value with its interval; a dash where it is undefined."""
    if figure.value is None:
        return "-"
    return f"{figure.value:.3f}" + ("" if figure.low is None else f" ({figure.low:.2f}–{figure.high:.2f})")


def share(value: float | None) -> str:
    """A share as a percentage; a dash where it is undefined."""
    return "-" if value is None else f"{value:.1%}"
