"""How a machine is shared out among worker processes and their threads, where nobody has said so."""

from __future__ import annotations

import os
from pathlib import Path

from ncagate.settings import MIB, Settings

BESIDE_STATES = 512 * MIB
"""What a worker process takes beside the automaton's states: its libraries, the reader, a scan and its results."""
CGROUP = Path("/sys/fs/cgroup")
"""Where a container finds what it may take (cgroup v2)."""


def cores(cgroup: Path = CGROUP) -> int:
    """Processor cores that this process may use: by its affinity, and by the container's quota."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = _limit(cgroup / "cpu.max").partition(" ")
    return max(1, min(allowed, int(quota) // int(period))) if quota.isdecimal() and period.isdecimal() else allowed


def memory_bytes(cgroup: Path = CGROUP) -> int:
    """Memory that this process may use: the machine's, or less where the container has a limit."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _limit(cgroup / "memory.max")
    return min(machine, int(limit)) if limit.isdecimal() else machine


def worker_processes(settings: Settings, cgroup: Path = CGROUP) -> int:
    """How many processes a worker runs: as set, or one a core, as far as there is memory for them; one on a GPU."""
    if settings.workers:
        return settings.workers
    if settings.engine == "torch-cuda":
        return 1
    room = memory_bytes(cgroup) // (settings.memory_budget + BESIDE_STATES)
    return max(1, min(cores(cgroup), room))


def threads_for_one(settings: Settings, under_way: int, cgroup: Path = CGROUP) -> int:
    """On how many threads a scan is segmented, of so many that wait or are under way: as set, or its share.

    A scan alone gets all of them, and is done soonest. Where every process has one, each gets its share: scans side by
    side on a thread each are more in a minute than one after another on all cores (`benchmarks.throughput`).
    """
    together = max(1, min(under_way, worker_processes(settings, cgroup)))
    return settings.threads or max(1, cores(cgroup) // together)


def _limit(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except OSError:
        return ""
