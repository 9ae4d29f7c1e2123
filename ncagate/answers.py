"""What a service said, for the terminal: lines, tables, exit codes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ncagate.terminal import Exit, complain, print_json

if TYPE_CHECKING:
    from ncagate.client import Job, NcagateError

OF_THE_SCAN = frozenset({"body_too_large", "too_many_files", "empty_file", "malformed_upload", "upload_too_slow"})
"""Codes of refusals that another scan may not get."""
UNDER_WAY = ("queued", "running")


@contextmanager
def asked() -> Iterator[None]:
    """What the service or the disk refuses, and what keeps them from answering, in one line and an exit code."""
    from ncagate import client

    try:
        yield
    except client.NcagateError as error:
        complain(str(error), error.code)
        later = client.ServiceError, client.NoAnswerError, client.WaitTimeoutError, client.NotFinishedError
        without = client.JobFailedError, client.JobCancelledError
        known = (without, Exit.NEGATIVE), (later, Exit.UNAVAILABLE)
        code = next((code for kinds, code in known if isinstance(error, kinds)), Exit.REFUSED)
        raise typer.Exit(code) from error
    except OSError as error:  # where results are written
        complain(f"{error.filename}: {error.strerror}", "file_error")
        raise typer.Exit(Exit.REFUSED) from error


def failure(scan: str, error: NcagateError) -> dict[str, Any]:
    """The record of a scan without a result; raises the error where it is not this scan's fault."""
    from ncagate import client

    its_own = isinstance(error, client.ScanError | client.JobFailedError | client.JobCancelledError)
    if not its_own and error.code not in OF_THE_SCAN:
        raise error
    return {"scan": scan, "id": getattr(error, "job", None), "error": {"code": error.code, "detail": str(error)}}


def exit_of(records: Sequence[Mapping[str, Any]], *, strict: bool) -> Exit:
    """The exit code for scans that were looked after; a record has the fields of a job, or an ``error``."""
    if any(one.get("error") or one.get("state") == "cancelled" for one in records):
        return Exit.NEGATIVE
    return Exit.FLAGGED if strict and any(one.get("verdict") == "flag" for one in records) else Exit.DONE


@contextmanager
def shown_so_far(*, json: bool) -> Iterator[list[dict[str, Any]]]:
    """A list of records; where something ends the command early, it is shown: jobs that were made are not lost."""
    from ncagate.client import NcagateError

    records: list[dict[str, Any]] = []
    try:
        yield records
    except (NcagateError, OSError, KeyboardInterrupt):
        if records:
            show_records(records, json=json)
        raise


def show_records(records: Sequence[Mapping[str, Any]], *, json: bool) -> None:
    """What became of every scan: the verdicts where all jobs have ended, else the jobs."""
    if json:
        print_json(list(records))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from ncagate.verdicts import print_verdicts

    if any(one.get("verdict") for one in records) and not any(one.get("state") in UNDER_WAY for one in records):
        print_verdicts(Console(), [(Path(one["scan"]).name, _shown(one)) for one in records])
        return
    table = Table("scan", "job", "state", box=None, pad_edge=False)
    for one in records:
        error = one.get("error")
        cells = Path(one["scan"]).name, one.get("id") or "", error["code"] if error else one["state"]
        table.add_row(*map(Text, cells))
    Console().print(table)


def show_batch(records: Sequence[Mapping[str, Any]], *, json: bool) -> None:
    """How many scans came to what; the rest is in the table."""
    if json:
        print_json(list(records))
        return
    verdicts = Counter(one.get("verdict") for one in records)
    typer.echo(f"{verdicts['accept']} accepted, {verdicts['flag']} flagged, {verdicts[None]} without a result")


def _shown(record: Mapping[str, Any]) -> Mapping[str, Any]:
    if record.get("state") != "cancelled":
        return record
    return {**record, "error": {"code": "job_cancelled", "detail": "the job was cancelled"}}


def print_jobs(jobs: Sequence[Job]) -> None:
    """A table of jobs."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("job", "state", "created", "model", "version", "verdict", "predicted Dice", box=None, pad_edge=False)
    for job in jobs:
        dice = "" if job.predicted_dice is None else f"{job.predicted_dice:.2f}"
        created = f"{job.created:%Y-%m-%d %H:%M:%S}"
        cells = job.id, _state(job), created, job.model, job.version, job.verdict or "", dice
        table.add_row(*map(Text, cells))
    Console().print(table)


def line_of(job: Job) -> str:
    """The job as it stands, in a line."""
    verdict = "" if job.verdict is None else f" {job.verdict}"
    stage = f" {job.stage}" if job.stage and not job.ended else ""
    return f"{job.progress:4.0%} {_state(job)}{stage}{verdict}"


def _state(job: Job) -> str:
    if job.error is not None:
        return f"{job.state}: {job.error.code}"
    return job.state if job.position is None else f"{job.state}, {job.position} before it"


@contextmanager
def upload_bar(name: str) -> Iterator[Callable[[int, int], None]]:
    """Shows the bytes that are sent, where somebody looks."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    console = Console(stderr=True)
    columns = TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(name, total=None)
        yield lambda sent, total: bar.update(task, completed=sent, total=total)
