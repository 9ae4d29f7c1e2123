"""How many scans an hour a core does, by anatomy, and what a thousand cost.

    python -m benchmarks.sizing [--scans N] [--core-hour PRICE]

Processor time is counted, not the clock: it is what a core has to give. The hippocampus goes through the whole service
(gateway, worker, reader, broker) with the version that ships; of the larger grids, for which none ships, the engine is
measured alone, on one thread, ten members, the paper's channels. Measure on an idle machine: where two threads share a
core, other work makes processor time longer too.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import httpx
import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.cases import MEMBERS, cases, noise
from benchmarks.soak import LIMITS, send
from benchmarks.weights import network_for
from imaging.nifti import write_nifti
from nca.architecture import Architecture, Level, Shape
from nca.engine import get_engine
from nca.network import Network
from ncagate.demo import OUT, serving

CARDIAC = (192, 192, 12)
CARDIAC_NETWORK = Architecture((Level(7, 20, (4, 4, 1)), Level(3, 40)))
"""A short-axis series has few slices, which are not halved."""
USED = 0.7
"""Share of a core's time that may be planned with: scans do not come evenly, and who waits minds."""

console = Console()


def main(arguments: Sequence[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--scans", type=int, default=40, help="sent to the service (default: 40)")
    parser.add_argument("--core-hour", type=float, default=0.04, help="price of a core for an hour (default: 0.04)")
    chosen = parser.parse_args(arguments)
    OUT.mkdir(exist_ok=True)
    small, large = (one for one in cases(quick=False) if one.name in ("hippocampus", "prostate"))
    seconds = {
        f"hippocampus {small.grid}, the service": _service_s(small.grid, chosen.scans),
        f"cardiac {CARDIAC}, the engine": _engine_s(network_for(CARDIAC_NETWORK), CARDIAC),
        f"prostate {large.grid}, the engine": _engine_s(large.network(), large.grid),
    }
    table = Table("grid", "s of a core", "scans an hour", f"planned ({USED:.0%})", "a thousand cost")
    for name, each in seconds.items():
        cost = 1000 * each / 3600 * chosen.core_hour / USED
        table.add_row(name, f"{each:.2f}", f"{3600 / each:,.0f}", f"{USED * 3600 / each:,.0f}", f"{cost:.3f}")
    console.print(table)
    console.print(f"a thousand cost = 1000 x seconds / 3600 x {chosen.core_hour} (a core, an hour) / {USED}")
    return 0


def _engine_s(network: Network, grid: Shape) -> float:
    """Processor time of ten members (s), on one thread."""
    engine, image = get_engine("auto", threads=1), noise(grid)
    list(engine.run(network, image, seed=0, members=range(1)))  # what is made once
    began = time.process_time()
    for _ in engine.run(network, image, seed=0, members=range(MEMBERS)):
        pass
    return time.process_time() - began


def _service_s(grid: Shape, scans: int) -> float:
    """Processor time of the whole service for a scan (s): gateway, worker, reader, broker."""
    with tempfile.TemporaryDirectory(prefix="ncagate-sizing-") as name:
        scan = Path(name) / "scan.nii.gz"
        write_nifti(scan, np.random.default_rng(0).normal(100, 20, grid).astype(np.float32), np.eye(4))
        with serving(data=Path(name) / "data", **LIMITS) as url, httpx.Client(base_url=url, timeout=60.0) as client:
            for number in range(3):
                send(client, scan.read_bytes(), number)
            before = _spent_s()
            for number in range(scans):
                send(client, scan.read_bytes(), number)
            return (_spent_s() - before) / scans


def _spent_s() -> float:
    """Processor time of everything that this process has started, what has ended included."""
    spent = 0.0
    for one in psutil.Process(os.getpid()).children(recursive=True):
        times = one.cpu_times()
        spent += times.user + times.system + times.children_user + times.children_system
    return spent


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
