"""Verdicts for a person's eyes: what `ncagate segment` and the demo print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

COLOURS = {"accept": "green", "flag": "yellow"}
INDENT = 4


def print_verdicts(console: Console, rows: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
    """Print a table of (title, record), and below it, in words, why scans were flagged or could not be read.

    A record has the fields of a result, or an ``error`` with ``code`` and ``detail``.
    """
    table = Table("scan", "verdict", "predicted Dice", "NQM", "volume", "seconds", box=None, pad_edge=False)
    for title, record in rows:
        table.add_row(escape(title), *_cells(record))
    console.print(table)
    for title, record in rows:
        if reasons := _reasons(record):
            console.print(f"\n[bold]{escape(title)}")
            for reason in reasons:
                console.print(Padding(f"{escape(reason['detail'])} [dim]{reason['code']}", (0, 0, 0, INDENT)))


def _cells(record: Mapping[str, Any]) -> list[str]:
    if record.get("error"):
        return ["[red]failed", "-", "-", "-", "-"]
    return [
        f"[bold {COLOURS[record['verdict']]}]{record['verdict']}",
        _predicted(record),
        _figure(record["nqm"], 3),
        f"{record['volume_ml']:.2f} ml",
        f"{record['seconds']:.1f}",
    ]


def _reasons(record: Mapping[str, Any]) -> list[dict[str, str]]:
    return [record["error"]] if record.get("error") else list(record.get("reasons") or [])


def _predicted(record: Mapping[str, Any]) -> str:
    """The predicted Dice with its interval, where there is one."""
    figure, interval = _figure(record["predicted_dice"], 2), record.get("dice_interval")
    return figure if interval is None else f"{figure} ({_figure(interval[0], 2)} to {_figure(interval[1], 2)})"


def _figure(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
