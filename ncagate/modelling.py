"""What `ncagate models list` and `ncagate engines` show."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Column, Table

from model_store.errors import ModelStoreError
from model_store.registry import Registry
from nca.engine import choose_engine, engines


def version_table(registry: Registry) -> Table:
    """Every model and version with its aliases and validation Dice; of an unusable one, why."""
    table = Table(
        "model", Column("version", no_wrap=True), "alias", "created", "Dice", "parameters", box=None, pad_edge=False
    )
    for name in registry.names():
        aliases = {}
        try:
            aliases = registry.aliases(name)
        except ModelStoreError as error:
            table.add_row(name, "", "", f"[red]{escape(str(error))}")
        for version in registry.versions(name):
            pointing = ", ".join(sorted(alias for alias, target in aliases.items() if target == version))
            try:
                manifest = registry.manifest(name, version)
                registry.check(manifest)
            except ModelStoreError as error:
                table.add_row(name, version, pointing, f"[red]unusable: {escape(str(error))}")
                continue
            dice = manifest.metrics.get("cross_validation", {}).get(manifest.structures[-1], {}).get("clean", {})
            table.add_row(
                name,
                version,
                pointing,
                f"{manifest.created:%Y-%m-%d}",
                f"{dice['dice_mean']:.3f}" if dice else "-",
                f"{manifest.parameters:,}",
            )
    return table


def engine_table(asked: str) -> Table:
    """Every engine, whether it runs here, and which of them a deployment that asks for ``asked`` uses.

    Raises:
        EngineUnavailableError: none of that name runs here.
    """
    chosen = choose_engine(asked).name
    why = "chosen: the fastest" if asked == "auto" else "chosen: asked for"
    table = Table(Column("engine", no_wrap=True), Column("runs here", no_wrap=True), "", box=None, pad_edge=False)
    for one in engines():
        runs = "yes, " + why if one.name == chosen else "yes" if one.runs else "no"
        table.add_row(one.name, runs, escape(one.detail))
    return table
