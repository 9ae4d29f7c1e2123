"""Whether the service's memory grows: a trickle of scans for a while, and a line through what each process holds.

    python -m benchmarks.soak [--minutes N] [--warm-minutes N] [--every-s S]

Every scan is sent, awaited, its mask fetched and its job erased; metrics are scraped. The slope is that of the time
after the warm-up, per process (resident, Linux), extrapolated to an hour.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
from rich.console import Console

from imaging.nifti import write_nifti
from ncagate.demo import MODEL, OUT, serving

SAMPLE_S = 10.0
JOB_S = 60.0
FINAL = ("succeeded", "failed", "cancelled")
LIMITS: dict[str, Any] = {"NCAGATE_CLIENT_RATE_MAX": "1000"}

console = Console()


def main(arguments: Sequence[str]) -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--warm-minutes", type=float, default=5.0)
    parser.add_argument("--every-s", type=float, default=2.0)
    chosen = parser.parse_args(arguments)
    OUT.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="ncagate-soak-") as name:
        folder = Path(name)
        scan = folder / "scan.nii.gz"
        noise = np.random.default_rng(0).normal(100, 20, (35, 50, 35)).astype(np.float32)
        write_nifti(scan, noise, np.eye(4))
        with serving(data=folder / "data", **LIMITS) as url:
            pids: dict[str, int] = json.loads((folder / "data" / "serve.json").read_text(encoding="utf-8"))["pids"]
            samples, scans = _run(url, scan.read_bytes(), pids, chosen)
    warm = 60 * chosen.warm_minutes
    console.print(f"{scans} scans in {chosen.minutes:g} minutes; after {chosen.warm_minutes:g} of them:")
    for process, series in samples.items():
        kept = np.array([(at, held) for at, held in series if at >= warm])
        slope, _ = np.polyfit(kept[:, 0], kept[:, 1], 1)
        console.print(
            f"  {process}: {kept[0, 1]:.1f} MiB at first, {kept[-1, 1]:.1f} at last, {3600 * slope:+.2f} MiB an hour"
        )
    return 0


def _run(
    url: str, scan: bytes, pids: dict[str, int], chosen: argparse.Namespace
) -> tuple[dict[str, list[tuple[float, float]]], int]:
    """MiB of each kind of process by seconds since the start, and how many scans were sent."""
    samples: dict[str, list[tuple[float, float]]] = defaultdict(list)
    began, sampled = time.monotonic(), float("-inf")
    with httpx.Client(base_url=url, timeout=JOB_S) as client:
        for number in itertools.count():
            now = time.monotonic() - began
            if now > 60 * chosen.minutes:
                return dict(samples), number
            if now - sampled >= SAMPLE_S:
                sampled = now
                client.get("/metrics").raise_for_status()
                for process, pid in pids.items():
                    samples[process].append((now, _held_mib(pid)))
            send(client, scan, number)
            time.sleep(max(0.0, began + (number + 1) * chosen.every_s - time.monotonic()))
    raise AssertionError


def send(client: httpx.Client, scan: bytes, number: int) -> None:
    """One scan, from its upload to the erasure of its job."""
    answer = client.post("/segment", files={"scan": scan}, data={"model": MODEL, "seed": str(number)})
    location = answer.raise_for_status().headers["Location"]
    deadline = time.monotonic() + JOB_S
    while client.get(location).raise_for_status().json()["state"] not in FINAL:
        if time.monotonic() > deadline:
            raise SystemExit(f"{location} has not ended")
        time.sleep(0.1)
    client.get(f"{location}/mask").raise_for_status()
    client.delete(location).raise_for_status()


def _held_mib(pid: int) -> float:
    """What a process and those that it started hold."""
    family = psutil.Process(pid)
    return float(sum(one.memory_info().rss for one in (family, *family.children(recursive=True)))) / 2**20


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
