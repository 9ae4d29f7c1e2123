"""What a scrape of /metrics costs a gateway, by how many jobs have a row.

    python -m benchmarks.scrape [--rounds N]

The database is a SQLite file with a week's totals of several versions; a quarter of the jobs wait.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

from rich.console import Console
from rich.table import Table
from sqlalchemy import insert

from jobs.database import open_database, upgrade, writing
from jobs.models import Job, JobRequest
from jobs.repository import JobRepository
from jobs.state import JobState
from jobs.tally import claimed, succeeded
from model_store.registry import Registry
from ncagate.settings import Settings
from service.metrics import Metrics

SIZES = (0, 100, 10_000, 100_000)
VERSIONS = 10
STAGES = ("read", "prepare", "segment", "judge", "write")


def main(arguments: Sequence[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=21)
    rounds = parser.parse_args(arguments).rounds
    table = Table("jobs", "median ms", "highest ms", "kB", "of the empty database's")
    empty = None
    for jobs in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            seconds, size = _measure(Settings(data=Path(folder)), jobs, rounds=rounds)
        median = statistics.median(seconds)
        empty = empty or median
        row = f"{jobs:,}", f"{1000 * median:.1f}", f"{1000 * max(seconds):.1f}", f"{size / 1000:.0f}"
        table.add_row(*row, f"{median / empty:.2f}")
    Console().print(table)
    return 0


def _measure(settings: Settings, jobs: int, *, rounds: int) -> tuple[list[float], int]:
    upgrade(settings.database)
    repository = JobRepository(open_database(settings.database))
    _fill(repository, jobs)
    metrics = Metrics(settings, repository, Registry(settings.models))
    size = len(metrics.page("text/plain")[0])
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        metrics.page("text/plain")
        seconds.append(time.perf_counter() - began)
    repository.close()
    return seconds, size


def _fill(repository: JobRepository, jobs: int) -> None:
    states = (JobState.QUEUED, JobState.SUCCEEDED, JobState.SUCCEEDED, JobState.FAILED)
    rows = [_row(number, states[number % len(states)]) for number in range(jobs)]
    with writing(repository.engine).begin() as connection:
        if rows:
            connection.execute(insert(Job), rows)
        for version in range(VERSIONS):
            for nqm in (0.02, 0.04, 0.3):
                stages = dict.fromkeys(STAGES, 0.1)
                record = {"model": "hippocampus", "version": f"version-{version}", "verdict": "accept", "nqm": nqm}
                succeeded(record | {"predicted_dice": 0.9, "stage_seconds": stages}).write(connection)
                claimed("routine", 1.0).write(connection)


def _row(number: int, state: JobState) -> dict[str, object]:
    request = JobRequest(model="hippocampus", version="version-1", min_dice=0.8, members=10)
    times = {"created_at": float(number), "queued_at": float(number)}
    result = {"verdict": "accept", "reasons": [], "padding": "x" * 2000} if state is JobState.SUCCEEDED else None
    return {"id": uuid4().hex, "state": state, "request": request, "result": result, **times}


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
