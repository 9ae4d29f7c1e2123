"""Commands for a service that runs elsewhere: `ncagate submit`, `status`, `watch`, `fetch`, `jobs`."""

from __future__ import annotations

from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from ncagate.answers import (
    asked,
    exit_of,
    failure,
    line_of,
    print_jobs,
    show_batch,
    show_records,
    shown_so_far,
    upload_bar,
)
from ncagate.stems import stems
from ncagate.terminal import Json, Strict, print_json, to_json, told

if TYPE_CHECKING:
    from ncagate.client import Client, Options

Url = Annotated[str | None, typer.Option(help="Address of the service (default NCAGATE_URL, or this machine).")]
Key = Annotated[
    str | None,
    typer.Option(help="API key or token; others on this machine can see it here, so rather set NCAGATE_KEY."),
]
Verify = Annotated[
    Path | None, typer.Option(help="Certificates (PEM) to trust in place of the usual ones.", exists=True)
]
Patience = Annotated[float, typer.Option(min=0, help="Seconds to go on trying after a first failure.")]
Timeout = Annotated[
    float | None, typer.Option(min=0, help="Seconds to wait for the end of a job (default: as long as it takes).")
]
JobId = Annotated[str, typer.Argument(help="Identifier of the job.")]
State = Literal["queued", "running", "succeeded", "failed", "cancelled"]


def install(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (submit, status, watch, fetch, jobs):
        app.command()(command)


def submit(
    scans: Annotated[list[Path] | None, typer.Argument(help="NIfTI files, zips or folders of a DICOM series.")] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            help="A batch: every NIfTI file, zip and folder (a DICOM series) in it.",
            exists=True,
            file_okay=False,
        ),
    ] = None,
    csv: Annotated[
        Path | None, typer.Option(help="Table of the batch, a row a scan; what has a row is not sent again.")
    ] = None,
    parallel: Annotated[int, typer.Option(min=1, max=64, help="Scans of a batch under way at once.")] = 4,
    model: Annotated[str, typer.Option(help="Model to use.")] = "hippocampus",
    version: Annotated[str | None, typer.Option(help="Version or alias; default: production.")] = None,
    members: Annotated[int | None, typer.Option(min=1, help="Size of the ensemble.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the fire masks.")] = None,
    roi: Annotated[str | None, typer.Option(help="Region of interest, as of `ncagate segment`.")] = None,
    min_dice: Annotated[float | None, typer.Option(help="Dice a mask must be predicted to reach.")] = None,
    alpha: Annotated[float | None, typer.Option(help="Largest share of failures among the accepted.")] = None,
    rule: Annotated[
        Literal["conformal", "nqm"] | None, typer.Option(help="What an accepted mask must show: conformal or nqm.")
    ] = None,
    series_uid: Annotated[str | None, typer.Option(help="Series to segment, where files hold several.")] = None,
    priority: Annotated[
        Literal["routine", "urgent"] | None, typer.Option(help="routine or urgent, which goes first.")
    ] = None,
    webhook: Annotated[str | None, typer.Option(help="URL that is told of the job's end.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the verdicts.")] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Wait, and put all files here.")] = None,
    timeout: Timeout = None,
    strict: Strict = False,
    json: Json = False,
    url: Url = None,
    key: Key = None,
    verify: Verify = None,
    patience: Patience = 30.0,
) -> None:
    """Send scans to a service, or with --folder and --csv a whole folder of them."""
    if bool(scans) == (folder is not None) or (folder is None) != (csv is None):
        raise typer.BadParameter("either scans, or --folder and --csv together", param_hint="SCANS")
    wishes = {
        "version": version, "members": members, "seed": seed, "roi": roi, "min_dice": min_dice, "alpha": alpha,
        "rule": rule, "series_uid": series_uid, "priority": priority, "webhook": webhook,
    }  # fmt: skip
    options = cast("Options", {name: value for name, value in wishes.items() if value is not None})
    if folder is not None and csv is not None:
        from ncagate.batch import Batch

        with told(), asked():
            batch = Batch(folder, csv, model=model, options=options, output=output, timeout=timeout, parallel=parallel)
            records = batch.run(url, key=key, verify=verify, patience=patience)
        show_batch(records, json=json)
    else:
        with asked(), _client(url, key, verify, patience) as client, shown_so_far(json=json) as records:
            for scan in scans or ():
                records.append(_submit(client, scan, model, options))
            if wait or output is not None:
                _finish(client, records, output, timeout)
        show_records(records, json=json)
    raise typer.Exit(exit_of(records, strict=strict))


def status(
    job: JobId,
    json: Json = False,
    url: Url = None,
    key: Key = None,
    verify: Verify = None,
    patience: Patience = 30.0,
) -> None:
    """How far a job is, or what came of it."""
    with asked(), _client(url, key, verify, patience) as client:
        found = client.job(job)
    if json:
        print_json(asdict(found))
    else:
        print_jobs([found])


def watch(
    job: JobId,
    timeout: Timeout = None,
    strict: Strict = False,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON object a line.")] = False,
    url: Url = None,
    key: Key = None,
    verify: Verify = None,
    patience: Patience = 30.0,
) -> None:
    """A line for every change of a job, until it has ended."""
    with asked(), _client(url, key, verify, patience) as client:
        for found in client.watch(job, timeout=timeout):
            typer.echo(to_json(asdict(found)) if json else line_of(found))
    raise typer.Exit(exit_of([asdict(found)], strict=strict))


def fetch(
    job: JobId,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the files.")] = Path(),
    strict: Strict = False,
    json: Json = False,
    url: Url = None,
    key: Key = None,
    verify: Verify = None,
    patience: Patience = 30.0,
) -> None:
    """Mask, uncertainty and preview of a job that has succeeded, and of a DICOM series SEG and SR."""
    with asked(), _client(url, key, verify, patience) as client:
        found = client.job(job)
        found.check()
        files = [str(one) for one in client.result(job).save_all(output)]
    if json:
        print_json(asdict(found) | {"files": files})
    else:
        typer.echo("\n".join(files))
    raise typer.Exit(exit_of([asdict(found)], strict=strict))


def jobs(
    state: Annotated[State | None, typer.Option(help="Only queued, running, succeeded, failed or cancelled.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Most jobs to show.")] = 50,
    json: Json = False,
    url: Url = None,
    key: Key = None,
    verify: Verify = None,
    patience: Patience = 30.0,
) -> None:
    """The newest jobs."""
    with asked(), _client(url, key, verify, patience) as client:
        found = list(islice(client.jobs(state=state), limit))
    if json:
        print_json([asdict(one) for one in found])
    else:
        print_jobs(found)


def _submit(client: Client, scan: Path, model: str, options: Options) -> dict[str, Any]:
    from ncagate.client import NcagateError

    with upload_bar(scan.name) as progress:
        try:
            return {"scan": str(scan)} | asdict(
                client.segment(scan, model=model, wait=False, progress=progress, **options)
            )
        except NcagateError as error:
            return failure(str(scan), error)


def _finish(client: Client, records: list[dict[str, Any]], output: Path | None, timeout: float | None) -> None:
    """Bring the records to the end of their jobs, and save their files."""
    for record, name in zip(records, stems([Path(one["scan"]) for one in records]), strict=True):
        if record.get("error"):
            continue
        for job in client.watch(record["id"], timeout=timeout):
            record.update(asdict(job))
        if output is not None and record["verdict"]:
            record["files"] = [str(one) for one in client.result(record["id"]).save_all(output, name=name)]


def _client(url: str | None, key: str | None, verify: Path | None, patience: float) -> Client:
    from ncagate.client import Client

    return Client(url, key=key, verify=verify, patience=patience)
