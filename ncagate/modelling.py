"""What `ncagate models list` and `ncagate engines` show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Column, Table

from model_store.errors import ModelStoreError
from model_store.registry import Registry
from nca.engine import choose_engine, engines


def version_records(registry: Registry) -> list[dict[str, Any]]:
    """Every model and version with its aliases and validation Dice; of what is unusable, why."""
    records: list[dict[str, Any]] = []
    for name in registry.names():
        aliases: Mapping[str, str] = {}
        try:
            aliases = registry.aliases(name)
        except ModelStoreError as error:
            records.append({"model": name, "version": None, "aliases": [], "error": str(error)})
        for version in registry.versions(name):
            pointing = sorted(alias for alias, target in aliases.items() if target == version)
            record: dict[str, Any] = {"model": name, "version": version, "aliases": pointing, "error": None}
            try:
                manifest = registry.manifest(name, version)
                registry.check(manifest)
            except ModelStoreError as error:
                records.append(record | {"error": str(error)})
                continue
            dice = manifest.metrics.get("cross_validation", {}).get(manifest.structures[-1], {}).get("clean", {})
            figures = {"dice": dice["dice_mean"] if dice else None, "parameters": manifest.parameters}
            records.append(record | {"created": manifest.created} | figures)
    return records


def version_table(records: Sequence[Mapping[str, Any]]) -> Table:
    """What `version_records` found."""
    table = Table(
        "model", Column("version", no_wrap=True), "alias", "created", "Dice", "parameters", box=None, pad_edge=False
    )
    for one in records:
        start = one["model"], one["version"] or "", ", ".join(one["aliases"])
        if one["error"] is not None:
            why = escape(one["error"])
            table.add_row(*start, f"[red]unusable: {why}" if one["version"] else f"[red]{why}")
            continue
        dice = "-" if one["dice"] is None else f"{one['dice']:.3f}"
        table.add_row(*start, f"{one['created']:%Y-%m-%d}", dice, f"{one['parameters']:,}")
    return table


def engine_records(asked: str) -> list[dict[str, Any]]:
    """Every engine, whether it runs here, and which of them a deployment that asks for ``asked`` uses.

    Raises:
        EngineUnavailableError: none of that name runs here.
    """
    chosen = choose_engine(asked).name
    return [
        {"engine": one.name, "runs": one.runs, "chosen": one.name == chosen, "detail": one.detail} for one in engines()
    ]


def engine_table(records: Sequence[Mapping[str, Any]], asked: str) -> Table:
    """What `engine_records` found."""
    why = "chosen: the fastest" if asked == "auto" else "chosen: asked for"
    table = Table(Column("engine", no_wrap=True), Column("runs here", no_wrap=True), "", box=None, pad_edge=False)
    for one in records:
        runs = "yes, " + why if one["chosen"] else "yes" if one["runs"] else "no"
        table.add_row(one["engine"], runs, escape(one["detail"]))
    return table
