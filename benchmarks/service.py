"""What a scan costs: `ncagate segment` from start to files, and the service's overhead over the bare pipeline.

    python -m benchmarks.service [--json FILE] [--rounds N]

Both sides of the overhead are run in turn, in one run on one machine, on the scan that `make demo` uses, so that
the ratio holds where the seconds do not.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from ncagate.demo import MODEL, OUT, serving, template_scans
from ncagate.segmenting import Batch
from ncagate.settings import Settings

ENSEMBLES = (10, 40, 300)
"""The default ensemble, a large one, and one whose inference takes more than 2 seconds."""
SETTINGS: dict[str, Any] = {"NCAGATE_MEMBERS_MAX": "300"}
OVERHEAD_GOAL = 1.3

console = Console()


def main(arguments: Sequence[str]) -> int:
    """Measure, print, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, default=Path("bench-out/service.json"))
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args(arguments)
    OUT.mkdir(exist_ok=True)
    scan = template_scans()[0].files[0]
    command = measure_command(scan)
    overhead = measure_overhead(scan, rounds=chosen.rounds)
    console.print(
        f"ncagate segment, 10 members: {command['seconds']:.1f} s, {command['cpu_seconds']:.1f} s of CPU, "
        f"peak {command['peak_rss_mb']:.0f} MB"
    )
    console.print(_table(overhead))
    chosen.json.parent.mkdir(parents=True, exist_ok=True)
    chosen.json.write_text(json.dumps({"command": command, "overhead": overhead}, indent=2) + "\n", encoding="utf-8")
    return 0


MEASURED = """
import atexit, sys
from benchmarks.memory import status_mb
atexit.register(lambda: print(status_mb("VmHWM"), file=sys.stderr))
from ncagate.cli import main
main()
"""
"""`ncagate` as its console script runs it, which says its peak resident memory (MB) when it ends."""


def measure_command(scan: Path) -> dict[str, float]:
    """Seconds, CPU seconds and peak resident memory (MB) of one `ncagate segment` process, start to exit."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-c", MEASURED, "segment", str(scan), "--model", MODEL, "--out", out]
        start, before = time.perf_counter(), os.times()
        answer = subprocess.run(command, capture_output=True, text=True)  # noqa: S603
        seconds, after = time.perf_counter() - start, os.times()
    if answer.returncode != 0:
        raise SystemExit(f"ncagate segment ended with {answer.returncode}: {answer.stderr}")
    return {
        "seconds": seconds,
        "cpu_seconds": sum(after[2:4]) - sum(before[2:4]),
        "peak_rss_mb": float(answer.stderr.splitlines()[-1]),
    }


def measure_overhead(scan: Path, *, rounds: int) -> list[dict[str, Any]]:
    """For each ensemble: median seconds from POST to the finished result, and of the bare pipeline in this process."""
    settings, rows = Settings(), []
    with (
        serving(**SETTINGS) as url,
        httpx.Client(base_url=url, timeout=300) as client,
        tempfile.TemporaryDirectory() as out,
    ):
        for members in ENSEMBLES:
            batch = Batch.open(settings, model=MODEL, version=None, members=members, seed=0, out=Path(out))
            _post(client, scan, members=members)  # both sides warm before the first round
            _bare(batch, scan)
            pairs = [(_post(client, scan, members=members), _bare(batch, scan)) for _ in range(rounds)]
            rows.append(
                {
                    "members": members,
                    "rounds": rounds,
                    "post_to_result_s": statistics.median(post for post, _ in pairs),
                    "pipeline_s": statistics.median(bare for _, bare in pairs),
                    "ratio": statistics.median(post / bare for post, bare in pairs),
                }
            )
    return rows


def _post(client: httpx.Client, scan: Path, *, members: int) -> float:
    start = time.perf_counter()
    with scan.open("rb") as file:
        answer = client.post(
            "/segment",
            data={"model": MODEL, "members": str(members)},
            files={"scan": (scan.name, file)},
            headers={"Prefer": "wait=60"},
        ).raise_for_status()
    if answer.json()["state"] != "succeeded":
        raise SystemExit(f"the service answered {answer.status_code} {answer.text[:300]}")
    return time.perf_counter() - start


def _bare(batch: Batch, scan: Path) -> float:
    start = time.perf_counter()
    batch.segment(scan, "bench")
    return time.perf_counter() - start


def _table(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table("members", "POST to result", "bare pipeline", f"ratio (goal below {OVERHEAD_GOAL})", box=None)
    for row in rows:
        table.add_row(
            str(row["members"]),
            f"{row['post_to_result_s']:.2f} s",
            f"{row['pipeline_s']:.2f} s",
            f"{row['ratio']:.2f}",
        )
    return table


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
