"""`ncagate submit --folder --csv`: many scans through a service, a row each in a table that outlives interruptions."""

from __future__ import annotations

import asyncio
import csv
import hashlib
import io
import json
import os
from collections.abc import Mapping
from dataclasses import KW_ONLY, asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ncagate.answers import failure
from ncagate.client import AsyncClient, Job, NcagateError, Options
from ncagate.client.scans import find_scan
from ncagate.stems import ENDINGS, stems

COLUMNS = (
    "name", "job", "verdict", "nqm", "predicted_dice", "dice_low", "dice_high", "volume_ml", "reasons", "error",
)  # fmt: skip
"""Of the table; the interval is that of the true Dice (90 %), ``reasons`` are codes with spaces between."""
HEAD = (",".join(COLUMNS) + "\r\n").encode()
"""The first row."""

console = Console(stderr=True)


@dataclass(frozen=True)
class Batch:
    """A folder of scans, the table they go to, and what is wanted of each. ``timeout`` in seconds, of each scan."""

    folder: Path
    table: Path
    _: KW_ONLY
    model: str
    options: Options
    output: Path | None
    timeout: float | None
    parallel: int

    def run(self, url: str | None, *, key: str | None, verify: Path | None, patience: float) -> list[dict[str, Any]]:
        """Do all scans that have no row yet; their records. What a job could not be blamed for ends the batch.

        Raises:
            NcagateError: of the service; rows that are there stay.
        """
        done = mended_names(self.table)
        scans = [one for one in sorted(self.folder.iterdir()) if _is_scan(one)]
        left = [(one, stem) for one, stem in zip(scans, stems(scans), strict=True) if one.name not in done]
        console.print(f"{len(left)} scans; {len(scans) - len(left)} have a row already", highlight=False)
        client = AsyncClient(url, key=key, verify=verify, patience=patience)
        try:
            return asyncio.run(self._all(client, left))
        except BaseExceptionGroup as errors:  # of the tasks, the first that ended the others
            raise errors.exceptions[0] from None

    async def _all(self, client: AsyncClient, scans: list[tuple[Path, str]]) -> list[dict[str, Any]]:
        records: list[dict[str, Any]] = []
        left = iter(scans)
        self.table.parent.mkdir(parents=True, exist_ok=True)
        with self.table.open("a", newline="", encoding="utf-8", errors="surrogateescape") as file, _bar() as bar:
            task = bar.add_task(self.folder.name, total=len(scans))

            async def work(client: AsyncClient) -> None:
                for scan, stem in left:
                    record = await self._one(client, scan, stem)
                    records.append(record)
                    _write(file, row_of(scan.name, record))
                    bar.advance(task)

            if file.tell() == 0:
                _write(file, dict(zip(COLUMNS, COLUMNS, strict=True)))
            async with client, asyncio.TaskGroup() as group:
                for _ in range(self.parallel):
                    group.create_task(work(client))
        return records

    async def _one(self, client: AsyncClient, scan: Path, stem: str) -> dict[str, Any]:
        try:
            job = await self._submitted(client, scan)
            result = await client.result(job.id, timeout=self.timeout)
            saved = [] if self.output is None else await result.save_all(self.output, name=stem)
        except NcagateError as error:
            return failure(str(scan), error)
        return {"scan": str(scan), **asdict(result.job), "files": [str(one) for one in saved]}

    async def _submitted(self, client: AsyncClient, scan: Path) -> Job:
        """The job of this scan: that of an earlier, interrupted run of this batch, unless it came to nothing."""
        name = self._name(scan)
        job = await client.segment(scan, model=self.model, wait=False, idempotency_key=name, **self.options)
        if job.ended and job.state != "succeeded":
            job = await client.segment(scan, model=self.model, wait=False, **self.options)
        return job

    def _name(self, scan: Path) -> str:
        """The same for the same files in the same batch, as far as sizes and times tell."""
        files = [(str(path), size, path.stat().st_mtime_ns) for path, size in find_scan(scan).files]
        batch = [str(self.table.absolute()), self.model, sorted(self.options.items()), files]
        return "batch-" + hashlib.sha256(json.dumps(batch).encode()).hexdigest()


def mended_names(table: Path) -> set[str]:
    """Names that have a row; the beginning of a row that was not finished is cut off.

    Raises:
        TableError: it is no batch's table; it is left as it is.
    """
    if not table.exists():
        return set()
    whole = table.read_bytes()
    if whole and not (HEAD.startswith(whole) or whole.startswith(HEAD)):
        raise TableError(f"{table}: this table is no batch's")
    end = whole.rfind(b"\r\n") + 2 if b"\r\n" in whole else 0
    os.truncate(table, end)
    return {
        row["name"] for row in csv.DictReader(io.StringIO(whole[:end].decode("utf-8", "surrogateescape"), newline=""))
    }


class TableError(Exception):
    """The file is there, and is another table."""

    code = "table_invalid"


def row_of(name: str, record: Mapping[str, Any]) -> dict[str, Any]:
    """The row of a scan, whose record has the fields of a job, or an ``error``."""
    low, high = record.get("dice_interval") or ("", "")
    return {
        **{column: record.get(column) for column in COLUMNS},
        "name": name,
        "job": record.get("id"),
        "dice_low": low,
        "dice_high": high,
        "reasons": " ".join(one["code"] for one in record.get("reasons") or ()),
        "error": (record.get("error") or {}).get("code"),
    }


def _write(file: Any, row: Mapping[str, Any]) -> None:
    csv.DictWriter(file, COLUMNS).writerow(row)
    file.flush()


def _is_scan(path: Path) -> bool:
    if path.name.startswith("."):
        return False
    return path.is_dir() or path.name.endswith(ENDINGS)


def _bar() -> Progress:
    columns = TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    return Progress(*columns, console=console, disable=not console.is_terminal)
