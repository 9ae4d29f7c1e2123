"""Peak resident memory of one engine on one case, in a process of its own.

    python -m benchmarks.memory CASE ENGINE [--threads N] [--quick]

prints one JSON object. The parent's side is `peak_rss_mb`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from math import prod
from pathlib import Path

from benchmarks.cases import cases, noise
from benchmarks.engines import make_engine
from benchmarks.weights import prefix

MEMBERS, STEPS = 2, 10
"""At most, of a member each level: memory grows with members that run side by side, not with steps."""


def peak_rss_mb(case: str, engine: str, *, threads: int, quick: bool) -> float:
    """Peak resident memory (MB) of a child process that runs ``engine`` on ``case``.

    Where the engine runs a part of the voxels, what it took above its start is extrapolated to all of them.
    """
    command = [sys.executable, "-m", "benchmarks.memory", case, engine, "--threads", str(threads)]
    root = Path(__file__).resolve().parents[1]
    answer = subprocess.run(  # noqa: S603
        [*command, *(["--quick"] if quick else [])], check=True, stdout=subprocess.PIPE, cwd=root
    )
    measured = json.loads(answer.stdout)
    start, peak, share = measured["start_mb"], measured["peak_mb"], measured["share_of_voxels"]
    return float(start + (peak - start) / share)


def main(arguments: Sequence[str]) -> int:
    """Run the child's side."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("case")
    parser.add_argument("engine")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--quick", action="store_true")
    chosen = parser.parse_args(arguments)
    case = next(one for one in cases(quick=chosen.quick) if one.name == chosen.case)
    plan = case.plan(chosen.engine)
    steps = tuple(min(one, STEPS) for one in plan.steps)
    plan = replace(plan, steps=steps, members=min(plan.members, MEMBERS))
    engine = make_engine(chosen.engine, threads=chosen.threads)
    network, image = prefix(case.network(), plan.steps), noise(plan.grid)
    start = status_mb("VmRSS")
    for _ in engine.run(network, image, seed=0, members=range(plan.members)):
        pass
    share = prod(plan.grid) / prod(case.grid)
    print(json.dumps({"start_mb": start, "peak_mb": status_mb("VmHWM"), "share_of_voxels": share}))
    return 0


def status_mb(field: str, pid: int | str = "self") -> float:
    """A size from Linux' /proc/PID/status.

    Not `getrusage`: its ru_maxrss begins with what the parent held when it started the child.
    """
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))


def cpu_s(pid: int) -> float:
    """Processor time of a process so far, its own and the system's for it (seconds), from Linux' /proc/PID/stat."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
