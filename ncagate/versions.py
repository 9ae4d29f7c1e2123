"""Commands for the versions in a store: `ncagate models`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ncagate.administration import note_promotion
from ncagate.monitoring import comparisons, show_comparisons
from ncagate.terminal import Json, chosen_settings, print_json, told

if TYPE_CHECKING:
    from model_store.registry import Registry

models = typer.Typer(help="List, show, promote and roll back model versions.", no_args_is_help=True)

Store = Annotated[
    Path | None, typer.Option(help="Model store; default: NCAGATE_STORE, or `models` in the data folder.")
]
Name = Annotated[str, typer.Argument(help="Name of the model.")]


def install(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(models, name="models")


@models.command("list")
def list_models(store: Store = None, json: Json = False) -> None:
    """Every model and version, which alias points where, and what is unusable."""
    from rich.console import Console

    from ncagate.modelling import version_records, version_table

    records = version_records(_registry(store))
    if json:
        print_json(records)
    else:
        Console().print(version_table(records))


@models.command()
def show(
    name: Name,
    version: Annotated[str | None, typer.Argument(help="Version or alias; default: production.")] = None,
    store: Store = None,
) -> None:
    """The manifest of a version, which is JSON."""
    with told():
        typer.echo(_registry(store).resolve(name, version).to_json(), nl=False)


@models.command()
def push(
    name: Name,
    version: Annotated[str, typer.Argument(help="Version to copy.")],
    source: Annotated[Path, typer.Option(help="Model store (folder) that has the version.")],
    json: Json = False,
) -> None:
    """Copy a version from a folder into the deployment's model store, which may be a bucket (NCAGATE_STORE_URL)."""
    from model_store.registry import Registry

    with told():
        _registry(None).adopt(Registry(source), name, version)
    if json:
        print_json({"model": name, "version": version})
    else:
        typer.echo(f"{name} {version} is published")


@models.command()
def promote(
    name: Name,
    version: Annotated[str, typer.Argument(help="Version that it shall mean.")],
    alias: Annotated[str, typer.Option(help="Alias to move.")] = "production",
    store: Store = None,
    json: Json = False,
) -> None:
    """Point an alias at a version; says what is known of it from the shadow of others. `--alias candidate` tries it."""
    with told():
        _registry(store).set_alias(name, alias, version)
        _promoted(store, name, alias, version, json=json)


@models.command()
def rollback(
    name: Name,
    alias: Annotated[str, typer.Option(help="Alias to move back.")] = "production",
    store: Store = None,
    json: Json = False,
) -> None:
    """Point an alias at the version it had before; says what is known of it from the shadow of others."""
    with told():
        _promoted(store, name, alias, _registry(store).rollback(name, alias), json=json)


def _promoted(store: Path | None, name: str, alias: str, version: str, *, json: bool) -> None:
    evidence = comparisons(name) if note_promotion(store, f"{name} {alias} {version}") else []
    if json:
        records = [asdict(one) for one in evidence]
        print_json({"model": name, "alias": alias, "version": version, "comparisons": records})
        return
    show_comparisons(name, evidence)
    typer.echo(f"{name}: {alias} is now {version}")


def _registry(store: Path | None) -> Registry:
    from model_store.registry import open_registry

    return open_registry(chosen_settings(store=store))
