"""Commands for how a model does in service: `ncagate drift`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ncagate.administration import Data, database
from ncagate.terminal import chosen_settings, told

if TYPE_CHECKING:
    from rich.table import Table

    from jobs.drift import VersionDrift

DRIFTED = 1
"""Exit code where something has drifted."""


def install(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(drift)


def drift(
    model: Annotated[str | None, typer.Argument(help="Name of the model (default: all).")] = None,
    store: Annotated[Path | None, typer.Option(help="Model store (default NCAGATE_STORE).")] = None,
    data: Data = None,
) -> None:
    """The last jobs of every version against the scans it was calibrated on. Exit code 1 where a signal has drifted."""
    from rich.console import Console

    from jobs.drift import DriftMonitor
    from model_store.registry import Registry

    settings = chosen_settings(data=data, store=store)
    with told(), database(data) as engine:
        monitor = DriftMonitor.of(settings, engine, Registry(settings.models))
        found = monitor.models() if model is None else monitor.model(model)
    console = Console()
    for one in found:
        console.print(_table(one))
    if not found:
        typer.echo("no version has finished a job")
    raise typer.Exit(DRIFTED if any(one.alarms for one in found) else 0)


def _table(found: VersionDrift) -> Table:
    from rich.table import Table

    against = "no reference" if found.scans is None else f"{found.scans} scans of reference"
    table = Table("signal", "jobs", "median", "reference", "distance", "limit", "", box=None, pad_edge=False)
    table.title = f"{found.model} {found.version}: last {found.jobs} jobs, {against}"
    for one in found.signals:
        medians = ("-" if value is None else f"{value:.3f}" for value in (one.median, one.reference_median))
        told = "[bold red]drifted" if one.alarm else ""
        table.add_row(one.signal, str(one.jobs), *medians, f"{one.ks:.3f}", f"{one.limit:.3f}", told)
    return table
