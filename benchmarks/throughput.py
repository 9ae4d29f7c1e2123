"""Small scans a minute: the whole service beside the bare engine, and processes against threads.

    python -m benchmarks.throughput [--json FILE] [--rounds N] [--jobs N] [--layout PROCESSESxTHREADS ...] [--scans DIR]

A service is started on a queue that is full, so what is measured is what it does with it: reading, segmenting, judging,
writing, and everything that makes the results last. Before and after each service the bare engine runs the same scans,
prepared beforehand, on all cores: the ratio of the two holds where the scans a minute do not. `auto` is the default.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from uuid import uuid4

from rich.console import Console
from rich.table import Table

from imaging.limits import Limits
from imaging.read import read_scan
from imaging.request import Request
from jobs.blobs import Blobs
from jobs.database import open_database, upgrade
from jobs.models import Job, JobRequest
from jobs.repository import JobRepository, cursor
from jobs.state import JobState
from jobs.submission import submit
from model_store.loaded import LoadedVersion, load_version, prepare
from model_store.registry import Registry
from nca.engine import get_engine
from nca.network import FloatArray
from ncagate.demo import MODEL, OUT, serving, template_scans
from ncagate.settings import Settings
from worker.app import NICE

GOAL = 0.9
WARM_UP = 8
"""Jobs that end before the clock starts: processes start, versions are loaded."""
BARE_SCANS = 24
"""Scans of one measurement of the bare engine."""
WAIT_S = 600.0
AUTOMATIC = "auto"

console = Console()


@dataclass(frozen=True)
class Bare:
    """The engine on all cores, one scan after another: nothing is read, judged or written."""

    version: LoadedVersion
    images: Sequence[FloatArray]

    def per_minute(self) -> float:
        """Scans a minute, in a process as nice as a worker's."""
        with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=os.nice, initargs=(NICE,)) as pool:
            return pool.submit(self._run).result()

    def _run(self) -> float:
        engine = get_engine("native", threads=0)
        members = range(self.version.manifest.calibration.members)
        start = 0.0
        for number in range(-1, BARE_SCANS):  # the first one warms up
            start = start if number > 0 else time.perf_counter()
            image = self.images[number % len(self.images)]
            for _ in engine.run(self.version.network, image, seed=0, members=members):
                pass
        return BARE_SCANS / (time.perf_counter() - start) * 60


def main(arguments: Sequence[str]) -> int:
    """Measure, print, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, default=Path("bench-out/throughput.json"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=120)
    parser.add_argument("--layout", nargs="+", default=[AUTOMATIC, "1x2", "2x1", "3x1"])
    parser.add_argument("--scans", type=Path, help="folder of NIfTI files; default: a crop of the MNI152 template")
    chosen = parser.parse_args(arguments)
    OUT.mkdir(exist_ok=True)
    files = sorted(chosen.scans.glob("*.nii.gz"))[:BARE_SCANS] if chosen.scans else list(template_scans()[0].files)
    bare = _bare(files)
    rows = [
        {"layout": layout, **measure(layout, files, bare, count=chosen.jobs)}
        for _ in range(chosen.rounds)
        for layout in chosen.layout
    ]
    summary = [_median(layout, rows) for layout in chosen.layout]
    console.print(_table(summary))
    chosen.json.parent.mkdir(parents=True, exist_ok=True)
    chosen.json.write_text(json.dumps({"rounds": rows, "medians": summary}, indent=2) + "\n", encoding="utf-8")
    return 0


def measure(layout: str, files: Sequence[Path], bare: Bare, *, count: int) -> dict[str, float]:
    """Scans a minute of a service in this layout, and of the bare engine (mean of before and after)."""
    before = bare.per_minute()
    with tempfile.TemporaryDirectory(prefix="ncagate-throughput-") as folder:
        settings = Settings(data=Path(folder))
        fill(settings, files, bare.version, count=count)
        with serving(data=settings.data, **_environment(layout)):
            ended = _drained(JobRepository(open_database(settings.database)), count)
    after = bare.per_minute()
    service = (count - WARM_UP) / (ended[-1] - ended[WARM_UP - 1]) * 60
    both = (before + after) / 2
    console.print(f"{layout}: {service:.0f} scans a minute, bare engine {before:.0f} and {after:.0f}")
    return {"service": service, "bare": both, "ratio": service / both}


def fill(settings: Settings, files: Sequence[Path], version: LoadedVersion, *, count: int) -> None:
    """Queue so many jobs, each one of these scans."""
    upgrade(settings.database)
    repository, blobs = JobRepository(open_database(settings.database)), Blobs(settings.blobs)
    manifest = version.manifest
    for number in range(count):
        request = JobRequest(
            model=manifest.name,
            version=manifest.version,
            min_dice=manifest.calibration.min_dice,
            members=manifest.calibration.members,
        )
        with blobs.staging() as staged:
            shutil.copy(files[number % len(files)], staged / "0000")
            submit(repository, blobs, uuid4().hex, staged=staged, request=request)


def _bare(files: Sequence[Path]) -> Bare:
    version = load_version(Registry(Settings().models), MODEL)
    preprocessing = version.manifest.preprocessing
    with tempfile.TemporaryDirectory() as folder:
        requests = [Request([file], Path(folder), Limits(), preprocessing.volumes) for file in files]
        images = [prepare(read_scan(one), preprocessing).image for one in requests]
    return Bare(version, images)


def _environment(layout: str) -> dict[str, Any]:
    if layout == AUTOMATIC:
        return {}
    processes, threads = layout.split("x")
    return {"NCAGATE_WORKERS": processes, "NCAGATE_THREADS": threads}


def _drained(repository: JobRepository, count: int) -> list[float]:
    """When each job ended, once all have."""
    deadline = time.monotonic() + WAIT_S
    while repository.status().counts.get(JobState.SUCCEEDED, 0) < count:
        if time.monotonic() > deadline:
            raise SystemExit("the service did not end its jobs in time")
        time.sleep(0.5)
    jobs: list[Job] = []
    before = None
    while page := repository.list(before=before, limit=500):
        jobs += page
        before = cursor(page[-1])
    return sorted(one.finished_at or 0.0 for one in jobs)


def _median(layout: str, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    mine = [row for row in rows if row["layout"] == layout]
    return {"layout": layout} | {
        name: statistics.median(row[name] for row in mine) for name in ("service", "bare", "ratio")
    }


def _table(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table(
        "processes x threads", "service, scans/min", "bare engine, scans/min", f"ratio (goal {GOAL})", box=None
    )
    for row in rows:
        table.add_row(row["layout"], f"{row['service']:.0f}", f"{row['bare']:.0f}", f"{row['ratio']:.2f}")
    return table


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
