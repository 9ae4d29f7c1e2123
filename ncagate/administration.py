"""Commands for who may come in and what is kept: `ncagate keys`, `clients`, `audit`, `purge`, `export-reviews`."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ncagate.settings import DATABASE_NAME
from ncagate.terminal import Json, chosen_settings, print_json, to_json, told

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from jobs.clients import Client, Scope
    from jobs.models import ApiKey
    from service.access.keys import KeyRepository

Data = Annotated[Path | None, typer.Option(help="Folder of the database (default NCAGATE_DATA).")]

keys = typer.Typer(help="Keys of the clients that may use the service.", no_args_is_help=True)
clients = typer.Typer(help="For how long each client's results are kept.", no_args_is_help=True)


def install(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(keys, name="keys")
    app.add_typer(clients, name="clients")
    app.command()(audit)
    app.command()(purge)
    app.command("export-reviews")(export_reviews)


@keys.command()
def create(
    client: Annotated[str, typer.Argument(help="Whose it is: jobs belong to the client, not to the key.")],
    scope: Annotated[
        list[str], typer.Option(help="submit, read or admin; again for another one (default: submit and read).")
    ] = ["submit", "read"],  # noqa: B006  # typer's way
    days: Annotated[float | None, typer.Option(min=0, help="Days after which it expires (default: never).")] = None,
    certificate: Annotated[
        Path | None, typer.Option(help="A client certificate (PEM) that stands for the key, checked by a proxy.")
    ] = None,
    secret_file: Annotated[
        Path | None, typer.Option(help="File of a key that was made elsewhere; the same one again changes nothing.")
    ] = None,
    data: Data = None,
    json: Json = False,
) -> None:
    """Make a key. It is printed once and kept nowhere: the service knows its SHA-256."""
    with told(), _repository(data) as repository:
        scopes, text = [_scope(one) for one in scope], None
        if certificate is not None:
            key, kind = (
                repository.register(client, scopes, certificate, by=_operator(), days=days),
                "; its certificate is the key",
            )
        elif secret_file is not None:
            key, kind = repository.adopt(client, scopes, _read(secret_file), by=_operator()), "; it is that of the file"
        else:
            (key, text), kind = repository.create(client, scopes, by=_operator(), days=days), ""
        if json:
            print_json(_key_record(key) | {"secret": text})
            return
        typer.echo(f"key {key.id} of {key.client}: {key.scopes}{kind}", err=text is not None)
        if text is not None:
            typer.echo(text)


@keys.command("list")
def list_keys(data: Data = None, json: Json = False) -> None:
    """All keys, and which of them are in force."""
    from rich.console import Console
    from rich.table import Table

    with told(), _repository(data) as repository:
        records = [_key_record(key) for key in repository.list()]
    if json:
        print_json(records)
        return
    table = Table("key", "client", "scopes", "created", "expires", "revoked")
    for one in records:
        times = (_day(one[name]) for name in ("created", "expires", "revoked"))
        table.add_row(one["key"], one["client"], " ".join(one["scopes"]), *times)
    Console().print(table)


@keys.command()
def revoke(
    key: Annotated[str, typer.Argument(help="Its identifier, as `ncagate keys list` shows it.")],
    data: Data = None,
    json: Json = False,
) -> None:
    """End a key; within a second no gateway takes it any more."""
    with told(), _repository(data) as repository:
        ended = repository.revoke(key, by=_operator())
        if json:
            print_json(_key_record(ended))
        else:
            typer.echo(f"key {ended.id} of {ended.client} is revoked")


@clients.command()
def keep(
    client: Annotated[str, typer.Argument(help="Name of the client.")],
    days: Annotated[float | None, typer.Argument(min=0, help="Days; none: as NCAGATE_KEEP_DAYS says.")] = None,
    data: Data = None,
    json: Json = False,
) -> None:
    """Keep a client's finished jobs for so many days."""
    from jobs.retention import Retention

    with told(), database(data) as engine:
        Retention(engine).keep(client, days)
    if json:
        print_json({"client": client, "days": days})
    else:
        typer.echo(f"{client}: {'as the deployment' if days is None else f'{days:g} days'}")


@clients.command("list")
def list_clients(data: Data = None, json: Json = False) -> None:
    """Clients whose jobs are kept for another time than the deployment's."""
    from jobs.retention import Retention

    with told(), database(data) as engine:
        own = Retention(engine).own()
    if json:
        print_json([{"client": client, "days": days} for client, days in own.items()])
        return
    for client, days in own.items():
        typer.echo(f"{client}: {days:g} days")


def audit(
    client: Annotated[str | None, typer.Option(help="Only what this client did.")] = None,
    subject: Annotated[str | None, typer.Option(help="Only what was done to this job, version or key.")] = None,
    after: Annotated[int, typer.Option(min=0, help="Only entries with higher numbers.")] = 0,
    data: Data = None,
) -> None:
    """Who submitted, read, erased or promoted what, when: one JSON object a line, oldest first."""
    from jobs.audit import AuditLog

    with told(), database(data) as engine:
        log = AuditLog(engine)
        while page := log.list(client=client, subject=subject, after=after):
            for entry in page:
                row = {
                    "number": entry.id,
                    "at": datetime.fromtimestamp(entry.at, UTC).isoformat(timespec="milliseconds"),
                    "client": entry.client,
                    "credential": entry.credential,
                    "action": entry.action,
                    "subject": entry.subject,
                }
                typer.echo(to_json(row))
            after = page[-1].id


def purge(
    days: Annotated[
        float | None, typer.Option(min=0, help="Days to keep finished jobs (default NCAGATE_KEEP_DAYS).")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count them.")] = False,
    data: Data = None,
    json: Json = False,
) -> None:
    """Erase finished jobs whose time is over: rows, scans, results. A running gateway does so every hour."""
    from jobs.repository import JobRepository
    from jobs.retention import Retention
    from model_store.registry import open_registry
    from pacs.collect import open_collection
    from pacs.config import load_pacs
    from pacs.retention import purge as run

    settings = chosen_settings(keep_days=days, data=data)
    with told(), database(data) as engine:
        if dry_run:
            count = len(Retention(engine).over(settings.keep_days, limit=1_000_000))
        else:
            jobs, registry = JobRepository(engine), open_registry(settings)
            collection = open_collection(settings, config=load_pacs(settings.pacs), jobs=jobs, registry=registry)
            count = run(collection, keep_days=settings.keep_days)
    if json:
        print_json({"jobs": count, "erased": not dry_run})
    else:
        typer.echo(f"{count} jobs {'would be erased' if dry_run else 'erased'}")


def export_reviews(
    out: Annotated[Path, typer.Argument(help="Folder for reviews.csv, images/ and labels/.")],
    client: Annotated[str | None, typer.Option(help="Only what is this client's.")] = None,
    data: Data = None,
) -> None:
    """Write what people decided, and the confirmed masks with their scans as labels to evaluate and train with."""
    from jobs.audit import Action, AuditLog
    from jobs.clients import Client
    from jobs.objects import open_blobs
    from jobs.reviews import ReviewRepository
    from ncagate.reviewed import export

    with told(), database(data) as engine:
        reviews = ReviewRepository(engine)
        if client is not None:
            reviews = reviews.seen_by(Client(client, frozenset(), "command line"))
        log, operator, exported = AuditLog(engine), _operator(), []
        for job, review in reviews.decided():
            log.add(operator, Action.READ, job.id)  # before a byte of it is copied
            exported.append((job, review))
        done = export(exported, open_blobs(chosen_settings(data=data)), out)
        typer.echo(f"{done.decisions} decisions, {done.masks} confirmed masks: {out}")


def note_promotion(store: Path | None, subject: str) -> bool:
    """Write a promotion at the command line into the audit log, where there is one and the store is the service's."""
    from jobs.audit import Action, AuditLog

    settings = chosen_settings()
    kept = store is None and bool(settings.database_url or (settings.data / DATABASE_NAME).exists())
    if kept:
        with database(None) as engine:
            AuditLog(engine).add(_operator(), Action.PROMOTED, subject)
    return kept


@contextmanager
def database(data: Path | None) -> Iterator[Engine]:
    """The deployment's database, brought up to date."""
    from jobs.database import open_database, upgrade

    settings = chosen_settings(data=data)
    upgrade(settings.database)
    engine = open_database(settings.database)
    try:
        yield engine
    finally:
        engine.dispose()


@contextmanager
def _repository(data: Path | None) -> Iterator[KeyRepository]:
    from service.access.keys import KeyRepository

    with database(data) as engine:
        yield KeyRepository(engine)


def _operator() -> Client:
    """Who types the command, for the audit log."""
    from jobs.clients import Client, Scope
    from jobs.models import LOCAL

    return Client(LOCAL, frozenset({Scope.ADMIN}), f"command line, {getpass.getuser()}"[:96])


def _scope(text: str) -> Scope:
    from jobs.clients import Scope

    try:
        return Scope(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r}: one of {', '.join(Scope)}", param_hint="--scope") from None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"cannot be read: {error}", param_hint="--secret-file") from None


def _key_record(key: ApiKey) -> dict[str, Any]:
    return {
        "key": key.id,
        "client": key.client,
        "scopes": key.scopes.split(),
        "created": _time(key.created_at),
        "expires": _time(key.expires_at),
        "revoked": _time(key.revoked_at),
    }


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _day(time: datetime | None) -> str:
    return "" if time is None else f"{time:%Y-%m-%d %H:%M}"
