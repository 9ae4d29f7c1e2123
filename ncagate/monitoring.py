"""Commands for how a model does in service: `ncagate drift`, `ncagate models compare`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ncagate.administration import Data, database
from ncagate.terminal import Exit, Json, chosen_settings, print_json, told

if TYPE_CHECKING:
    from rich.table import Table

    from jobs.drift import VersionDrift
    from jobs.shadow import Comparison


def install(app: typer.Typer, models: typer.Typer) -> None:
    """Add the commands."""
    app.command()(drift)
    models.command()(compare)


def drift(
    model: Annotated[str | None, typer.Argument(help="Name of the model (default: all).")] = None,
    store: Annotated[Path | None, typer.Option(help="Model store (default NCAGATE_STORE).")] = None,
    data: Data = None,
    json: Json = False,
) -> None:
    """The last jobs of every version against the scans it was calibrated on. Exit code 1 where a signal has drifted."""
    from jobs.drift import DriftMonitor
    from model_store.registry import open_registry

    settings = chosen_settings(data=data, store=store)
    with told(), database(data) as engine:
        monitor = DriftMonitor.of(settings, engine, open_registry(settings))
        found = monitor.models() if model is None else monitor.model(model)
    if json:
        print_json([asdict(one) | {"alarms": one.alarms} for one in found])
    else:
        _show(found)
    raise typer.Exit(Exit.NEGATIVE if any(one.alarms for one in found) else Exit.DONE)


def _show(found: Sequence[VersionDrift]) -> None:
    from rich.console import Console

    console = Console()
    for one in found:
        console.print(_table(one))
    if not found:
        typer.echo("no version has finished a job")


def compare(
    name: Annotated[str, typer.Argument(help="Name of the model.")],
    data: Data = None,
    json: Json = False,
) -> None:
    """How candidates did in the shadow of the versions that answered: the latest comes first."""
    with told():
        found = comparisons(name, data=data)
    if json:
        print_json([asdict(one) for one in found])
        return
    show_comparisons(name, found)
    if not found:
        typer.echo(f"{name}: no candidate was tried yet")


def comparisons(name: str, *, data: Path | None = None) -> list[Comparison]:
    """What the shadow runs of a model say."""
    from jobs.shadow import Shadows

    with database(data) as engine:
        shadows = Shadows(engine)
        return [shadows.compare(pair) for pair in shadows.pairs(name)]


def show_comparisons(name: str, found: Sequence[Comparison]) -> None:
    """Print a table of them, if there are any."""
    from rich.console import Console

    if found:
        Console().print(_comparisons(name, found))


def _comparisons(name: str, found: Sequence[Comparison]) -> Table:
    from rich.table import Table

    columns = (
        "version",
        "candidate",
        "jobs",
        "Dice between",
        "lowest 5 %",
        "NQM",
        "predicted Dice",
        "verdicts",
        "time",
    )
    table = Table(*columns, "no mask", box=None, pad_edge=False, title=f"{name}: candidates less versions")
    for one in found:
        failed = ", ".join(f"{count} {code}" for code, count in sorted(one.outcomes.items()))
        agreement = (_figure(one.dice, ".3f"), _figure(one.dice_low, ".3f"))
        differences = (_figure(one.nqm, "+.4f"), _figure(one.predicted_dice, "+.4f"))
        changed = f"{one.verdicts_changed} changed" if one.jobs else "-"
        slowdown = "-" if one.slowdown is None else f"x {one.slowdown:.2f}"
        versions = (one.pair.version, one.pair.candidate, str(one.jobs))
        table.add_row(*versions, *agreement, *differences, changed, slowdown, failed)
    return table


def _figure(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _table(found: VersionDrift) -> Table:
    from rich.table import Table

    against = "no reference" if found.scans is None else f"{found.scans} scans of reference"
    table = Table("signal", "jobs", "median", "reference", "distance", "limit", "", box=None, pad_edge=False)
    table.title = f"{found.model} {found.version}: last {found.jobs} jobs, {against}"
    for one in found.signals:
        medians = (_figure(value, ".3f") for value in (one.median, one.reference_median))
        said = "[bold red]drifted" if one.alarm else ""
        table.add_row(one.signal, str(one.jobs), *medians, f"{one.ks:.3f}", f"{one.limit:.3f}", said)
    return table
