"""What it takes to receive a series of 500 slices from an archive, beside reading the same files with pydicom alone.

    python -m benchmarks.receiving [--json FILE] [--rounds N] [--slices N]

From the first byte sent to the last acknowledgement, by which everything is durably on the disk and its headers were
read: by STOW-RS in one request and in requests of ten instances, and by C-STORE (DCMTK's storescu, which has to be
installed). Sender and receiver share this machine. Sides are run in turn, in one run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter

import httpx
from pydicom.uid import MRImageStorage
from rich.console import Console
from rich.table import Table

from benchmarks.reading import GOAL, by_pydicom, make_series
from benchmarks.stopwatch import interleaved
from jobs.blobs import FileContent
from ncagate.demo import OUT, serving
from ncagate.orthanc import LOOPBACK, free_ports, program
from pacs.multipart import related

PACS = """
quiet_s = 0.1

[listen]
host = "127.0.0.1"
port = {port}
"""
PART = 10
WAIT_S = 60.0

console = Console()


def main(arguments: Sequence[str]) -> int:
    """Measure, print, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, default=Path("bench-out/receiving.json"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--slices", type=int, default=500)
    chosen = parser.parse_args(arguments)
    OUT.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="ncagate-") as name:
        files = make_series(Path(name) / "series", MRImageStorage, chosen.slices)
        seconds = measure(files, Path(name), rounds=chosen.rounds)
    ratios = {side: taken / seconds["pydicom"] for side, taken in seconds.items()}
    table = Table("side", "seconds", f"× pydicom (goal at most {GOAL})", box=None)
    for side, taken in seconds.items():
        table.add_row(side, f"{taken:.2f}", f"{ratios[side]:.2f}")
    console.print(table)
    chosen.json.parent.mkdir(parents=True, exist_ok=True)
    chosen.json.write_text(json.dumps({"seconds": seconds, "ratios": ratios}, indent=2) + "\n", encoding="utf-8")
    return 0


def measure(files: Sequence[Path], folder: Path, *, rounds: int) -> dict[str, float]:
    """Seconds of each side, medians."""
    (port,) = free_ports(1)
    config = folder / "pacs.toml"
    config.write_text(PACS.format(port=port), encoding="utf-8")
    tens = [files[at : at + PART] for at in range(0, len(files), PART)]
    with (
        serving(NCAGATE_PACS=str(config), NCAGATE_RECONCILE_S="0.2") as url,
        httpx.Client(base_url=url, timeout=WAIT_S) as client,
    ):
        sides: dict[str, Callable[[], float]] = {
            "pydicom": lambda: _seconds_of_pydicom(files),
            "STOW-RS, one request": lambda: _stow(client, [files]),
            "STOW-RS, ten at a time": lambda: _stow(client, tens),
            "C-STORE": lambda: _c_store(client, port, files),
        }
        for one in sides.values():
            one()  # the files come from the page cache, and everything is imported
        return interleaved(sides, rounds=rounds)


def _seconds_of_pydicom(files: Sequence[Path]) -> float:
    start = perf_counter()
    by_pydicom(files)
    return perf_counter() - start


def _stow(client: httpx.Client, parts: Sequence[Sequence[Path]]) -> float:
    start = perf_counter()
    for part in parts:
        media_type, body = related([FileContent(one).chunks() for one in part])
        answer = client.post("/dicomweb/studies", content=body, headers={"Content-Type": media_type})
        answer.raise_for_status()
    taken = perf_counter() - start
    _forgotten(client)
    return taken


def _c_store(client: httpx.Client, port: int, files: Sequence[Path]) -> float:
    command = [program("storescu"), "--required", "--call", "NCAGATE", LOOPBACK, str(port), *map(str, files)]
    start = perf_counter()
    subprocess.run(command, check=True, capture_output=True, timeout=WAIT_S)  # noqa: S603
    taken = perf_counter() - start
    _forgotten(client)
    return taken


def _forgotten(client: httpx.Client) -> None:
    """Wait until the service has dropped the series, which no route wants: the next side stores it anew."""
    deadline = time.monotonic() + WAIT_S
    while any(one["state"] == "collecting" for one in client.get("/series").raise_for_status().json()["series"]):
        if time.monotonic() > deadline:
            raise TimeoutError("the series is still there")
        time.sleep(0.1)
    time.sleep(1.0)  # the files go after the row


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
