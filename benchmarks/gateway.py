"""What a gateway costs that waits, and what a long queue costs those who come then.

    python -m benchmarks.gateway [--queued N] [--requests N]

The service starts twice: new, and on the data folder of the first time. Then a gateway without workers is asked and
given scans, alternately with an empty queue and with a long one, in one run. The broker's messages are left out: the
rows are put into the database by hand.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import httpx
from rich.console import Console
from sqlalchemy import delete, insert

from benchmarks.load import LIMITS
from benchmarks.memory import status_mb
from jobs.database import open_database, writing
from jobs.models import Job, JobRequest
from jobs.state import JobState
from ncagate.demo import MODEL, OUT, serving
from ncagate.private_redis import command, find_server, socket_path, url
from ncagate.settings import Settings

START_S = 60.0
IDLE_S = 5.0
ROUNDS = 4
"""Times that both are measured, in turns."""

console = Console()


def main(arguments: Sequence[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--queued", type=int, default=10_000)
    parser.add_argument("--requests", type=int, default=400, help="of each kind, with each queue")
    chosen = parser.parse_args(arguments)
    OUT.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="ncagate-gateway-") as name:
        for when in ("new", "again"):
            seconds, memory = _start(Path(name) / "data")
            console.print(f"{when}: ready after {seconds:.1f} s; idle, the gateway holds {memory:.0f} MiB")
        with _gateway(Path(name) / "alone") as (client, settings):
            for kind, (empty, full) in _compare(client, settings, chosen).items():
                console.print(
                    f"{kind}: p95 {1e3 * empty:.1f} ms with an empty queue, {1e3 * full:.1f} ms with {chosen.queued:,} "
                    f"jobs queued: {full / empty:.2f} times",
                    soft_wrap=True,
                )
    return 0


def _start(data: Path) -> tuple[float, float]:
    """Seconds until the whole service says that it is ready, and its gateway's memory (MiB) a while later."""
    began = time.perf_counter()
    with serving(data=data) as address:
        while httpx.get(f"{address}/readyz").status_code != httpx.codes.OK:
            time.sleep(0.05)
        seconds = time.perf_counter() - began
        time.sleep(IDLE_S)
        return seconds, status_mb("VmRSS", _pid(data))


def _pid(data: Path) -> int:
    return int(json.loads((data / "serve.json").read_text(encoding="utf-8"))["pids"]["gateway"])


@contextmanager
def _gateway(data: Path) -> Iterator[tuple[httpx.Client, Settings]]:
    """A gateway and its broker; nobody works."""
    data.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with socket_path(data) as path:
        settings = Settings(data=data, redis_url=url(path))
        environment = os.environ | {
            "NCAGATE_DATA": str(data), "NCAGATE_REDIS_URL": url(path), "NCAGATE_PORT": str(port),
            "NCAGATE_RECONCILE_S": "3600", **dict.fromkeys(LIMITS, "1000000"),
        }  # fmt: skip
        redis = subprocess.Popen(command(find_server(), path, log=data / "redis.log"))  # noqa: S603
        with (OUT / "gateway.log").open("w") as log:
            line = [sys.executable, "-m", "ncagate.cli", "gateway"]
            gateway = subprocess.Popen(line, env=environment, stdout=log, stderr=log)  # noqa: S603
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30.0) as client:
                _until(lambda: client.get("/readyz").status_code == httpx.codes.OK)
                yield client, settings
        finally:
            for process in (gateway, redis):
                process.terminate()
                process.wait()


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        try:
            if holds():
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise SystemExit("the gateway did not start")


def _compare(client: httpx.Client, settings: Settings, chosen: argparse.Namespace) -> dict[str, tuple[float, float]]:
    """The 95th percentiles (s) of both kinds of request, with an empty queue and with a full one."""
    kinds: dict[str, Callable[[], httpx.Response]] = {
        "POST /segment": lambda: client.post("/segment", files={"scan": b"scan"}, data={"model": MODEL}),
        "GET /jobs": lambda: client.get("/jobs", params={"limit": 50}),
    }
    engine = open_database(settings.database)
    found: dict[str, tuple[list[float], list[float]]] = {kind: ([], []) for kind in kinds}
    for _ in range(ROUNDS):
        for full in (False, True):
            with writing(engine).begin() as connection:
                connection.execute(delete(Job))
                # as many rows either way: the queue is what is compared, and not the length of the table
                state = JobState.QUEUED if full else JobState.FAILED
                connection.execute(insert(Job), [_row(number, state) for number in range(chosen.queued)])
            for kind, ask in kinds.items():
                for _ in range(chosen.requests // ROUNDS):
                    began = time.perf_counter()
                    ask().raise_for_status()
                    found[kind][full].append(time.perf_counter() - began)
    engine.dispose()
    return {kind: (_p95(empty), _p95(full)) for kind, (empty, full) in found.items()}


def _row(number: int, state: JobState) -> dict[str, object]:
    request = JobRequest(model=MODEL, version="version-1", min_dice=0.8, members=10)
    at = time.time() - 100_000 + number
    return {"id": uuid4().hex, "state": state, "request": request, "created_at": at, "queued_at": at}


def _p95(seconds: Sequence[float]) -> float:
    return statistics.quantiles(seconds, n=20)[18]


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
