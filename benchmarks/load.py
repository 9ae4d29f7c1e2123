"""What one gateway takes: many jobs at once, many who poll, many large uploads, and a stranger's.

    python -m benchmarks.load [--json FILE] [--jobs N] [--pollers N] [--uploads N] [--megabytes N]

The whole embedded service on this machine, which is the senders' too. It counts what was lost: nothing may be.
Exit code 1 where a job was lost or did not end, or a goal of correctness was missed; times are printed, not judged.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
from rich.console import Console

from benchmarks.memory import cpu_s, status_mb
from imaging.nifti import write_nifti
from ncagate.demo import MODEL, OUT, serving

SENDERS = 8
"""Uploads at once."""
EVERY = 20
"""One of so many jobs is a scan; a cut one fails within some 30 ms."""
POLL_S = 1.0
"""How often one who polls asks: what `Retry-After` tells it."""
POLLED_S = 30.0
JOB_S = 3600.0
STRANGER_BYTES = 1_000_000_000
TERMINAL = ("succeeded", "failed", "cancelled")
MB = 1_000_000
LIMITS = ("NCAGATE_CLIENT_QUEUE_MAX", "NCAGATE_QUEUE_MAX", "NCAGATE_CLIENT_RATE_MAX")
SETTINGS: dict[str, Any] = dict.fromkeys(LIMITS, "100000")
"""What is measured is what the gateway takes, not what it is told to take of one client."""
GOALS = {"p99_ms": 50.0, "growth_mb": 50.0, "stranger_bytes": 1_000_000}

console = Console()


@dataclass(frozen=True)
class Site:
    """The service under load, and who loads it."""

    url: str
    data: Path
    key: str

    def client(self) -> httpx.AsyncClient:
        """An HTTP client that has a key and as many connections as it wants."""
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        headers = {"Authorization": f"Bearer {self.key}"}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=120.0, limits=limits)

    @property
    def gateway(self) -> int:
        """Its process."""
        return int(json.loads((self.data / "serve.json").read_text(encoding="utf-8"))["pids"]["gateway"])


def main(arguments: Sequence[str]) -> int:
    """Load, print, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, default=Path("bench-out/load.json"))
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--pollers", type=int, default=200)
    parser.add_argument("--uploads", type=int, default=200)
    parser.add_argument("--megabytes", type=int, default=200)
    chosen = parser.parse_args(arguments)
    OUT.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="ncagate-load-") as name:
        figures = measure(Path(name), chosen)
    chosen.json.parent.mkdir(parents=True, exist_ok=True)
    chosen.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    kept = figures["stranger"]["bytes"] < GOALS["stranger_bytes"] and not figures["jobs"]["lost"]
    return 0 if kept and figures["uploads"]["ended"] == chosen.uploads else 1


def measure(folder: Path, chosen: argparse.Namespace) -> dict[str, Any]:
    """All four, on one service."""
    data, scan = folder / "data", folder / "scan.nii.gz"
    noise = np.random.default_rng(0).normal(100, 20, (24, 24, 24)).astype(np.float32)
    write_nifti(scan, noise, np.eye(4))
    with serving(data=data, **SETTINGS) as url:
        command = [sys.executable, "-m", "ncagate.cli", "keys", "create", "load", "--data", str(data)]
        key = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603
        site = Site(url, data, key)
        figures: dict[str, Any] = {"stranger": stranger(site)}
        _say(
            "a stranger's upload of 1 GB: refused with {status} after {bytes} bytes were sent (goal < 1,000,000)",
            figures["stranger"],
        )
        figures["uploads"] = asyncio.run(uploads(site, count=chosen.uploads, size=chosen.megabytes * MB))
        _say(
            "{count} uploads of {megabytes} MB: {ended} ended, {mb_per_s:.0f} MB/s; the gateway had {before_mb:.0f} MB "
            "after the first ten and {peak_mb:.0f} MB at most, {growth_mb:+.0f} MB (goal within 50)",
            figures["uploads"],
        )
        figures["polling"], figures["jobs"] = asyncio.run(jobs(site, scan.read_bytes(), chosen.jobs, chosen.pollers))
        _say(
            "{pollers} clients that poll once a second while a worker computes: {requests} requests, "
            "p50 {p50_ms:.1f} ms, p99 {p99_ms:.1f} ms, longest {max_ms:.0f} ms, {errors} errors (goal: p99 < 50 ms); "
            "{cpu_ms:.2f} ms of the gateway's processor each",
            figures["polling"],
        )
        _say(
            "{count} jobs, accepted at {per_s:.0f} a second: {states}, {lost} lost, {counted} counted; the last one "
            "ended after {seconds:.0f} s",
            figures["jobs"],
        )
    return figures


def stranger(site: Site) -> dict[str, Any]:
    """Send 1 GB without a key, until the service has had enough: its answer, and how much it was sent until then."""
    place, sent = urlsplit(site.url), 0
    head = f"POST /segment HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Length: {STRANGER_BYTES}\r\n"
    head += "Content-Type: multipart/form-data; boundary=b\r\n\r\n"
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32768)  # what lies here was not sent
        raw.connect((place.hostname, place.port))
        raw.sendall(head.encode())
        raw.setblocking(False)
        answer, deadline = b"", time.monotonic() + 30.0
        while sent < STRANGER_BYTES and time.monotonic() < deadline:
            try:
                sent += raw.send(bytes(16384))
            except BlockingIOError:
                time.sleep(0.001)
            except OSError:
                break
            try:
                answer += raw.recv(65536)
            except OSError:
                continue
    return {"status": answer[9:12].decode() or "no answer", "bytes": sent}


async def uploads(site: Site, *, count: int, size: int) -> dict[str, Any]:
    """Send large files that are no scans, erase each one's job when it has ended, and watch the gateway's memory."""
    memory: list[float] = []
    began, left = time.perf_counter(), iter(range(count))
    ended = 0

    async def send(client: httpx.AsyncClient) -> None:
        nonlocal ended
        for _ in left:
            location = await _upload(client, size)
            job = await _until_ended(client, location)
            await client.delete(location)
            ended += job["state"] in TERMINAL
            memory.append(status_mb("VmRSS", site.gateway))

    async with site.client() as client:
        await asyncio.gather(*(send(client) for _ in range(2)))
    seconds = time.perf_counter() - began
    before = memory[min(9, len(memory) - 1)]
    return {
        "count": count, "megabytes": size // MB, "ended": ended, "mb_per_s": count * size / MB / seconds,
        "before_mb": before, "peak_mb": max(memory), "growth_mb": max(memory[9:] or memory) - before,
    }  # fmt: skip


async def _upload(client: httpx.AsyncClient, size: int) -> str:
    head = b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\n' + MODEL.encode()
    head += b'\r\n--b\r\nContent-Disposition: form-data; name="scan"; filename="x"\r\n\r\n'
    tail, piece = b"\r\n--b--\r\n", bytes(1 << 20)

    async def body() -> Any:
        yield head
        for _ in range(size // len(piece)):
            yield piece
        yield tail

    length = len(head) + size // len(piece) * len(piece) + len(tail)
    headers = {"Content-Type": "multipart/form-data; boundary=b", "Content-Length": str(length)}
    answer = await client.post("/segment", content=body(), headers=headers)
    return str(answer.raise_for_status().headers["Location"])


async def _until_ended(client: httpx.AsyncClient, location: str) -> dict[str, Any]:
    deadline = time.monotonic() + JOB_S
    while True:
        job: dict[str, Any] = (await client.get(location)).raise_for_status().json()
        if job["state"] in TERMINAL or time.monotonic() > deadline:
            return job
        await asyncio.sleep(0.1)


async def jobs(site: Site, scan: bytes, count: int, pollers: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Submit as fast as the gateway takes them; poll while they are worked on; wait for the last one and count.

    One in `EVERY` is a scan, the others are cut off: so the queue is of the gateway's making, and ends today.
    """
    left, locations = iter(range(count)), list[str]()

    async def send(client: httpx.AsyncClient) -> None:
        for number in left:
            answer = await client.post(
                "/segment",
                files={"scan": scan[: None if number % EVERY == 0 else -100]},
                data={"model": MODEL, "members": "2", "seed": str(number)},
            )
            locations.append(str(answer.raise_for_status().headers["Location"]))

    async with site.client() as client:
        began = time.perf_counter()
        await asyncio.gather(*(send(client) for _ in range(SENDERS)))
        taken = time.perf_counter() - began
        polling = await _poll(site, locations, pollers)
        states = await _drained(client)
        found = Counter(states.values())
        totals = (await client.get("/metrics")).text
    lost = [one for one in locations if states.get(one.rsplit("/", 1)[1]) not in TERMINAL]
    return polling, {
        "count": count, "per_s": count / taken, "seconds": time.perf_counter() - began, "states": dict(found),
        "lost": len(lost), "counted": _counted(totals),
    }  # fmt: skip


async def _poll(site: Site, locations: Sequence[str], pollers: int) -> dict[str, Any]:
    """Over connections of their own, as light as can be: the senders share the machine with the gateway."""
    seconds, errors, place = list[float](), 0, urlsplit(site.url)
    before = cpu_s(site.gateway)

    async def poll(number: int) -> None:
        nonlocal errors
        await asyncio.sleep(number / pollers * POLL_S)  # people do not ask in step
        end = time.monotonic() + POLLED_S
        reader, writer = await asyncio.open_connection(place.hostname, place.port)
        path = locations[-1 - number % len(locations)]
        while time.monotonic() < end:
            began = time.perf_counter()
            writer.write(
                f"GET {path} HTTP/1.1\r\nHost: {place.netloc}\r\nAuthorization: Bearer {site.key}\r\n\r\n".encode()
            )
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            seconds.append(time.perf_counter() - began)
            errors += not head.startswith(b"HTTP/1.1 200 ")
            await asyncio.sleep(max(0.0, POLL_S - seconds[-1]))
        writer.close()

    await asyncio.gather(*(poll(number) for number in range(pollers)))
    cuts = statistics.quantiles(seconds, n=100)
    return {
        "pollers": pollers, "requests": len(seconds), "errors": errors, "p50_ms": cuts[49] * 1e3,
        "p99_ms": cuts[98] * 1e3, "max_ms": max(seconds) * 1e3,
        "cpu_ms": (cpu_s(site.gateway) - before) / len(seconds) * 1e3,
    }  # fmt: skip


async def _drained(client: httpx.AsyncClient) -> dict[str, str]:
    """The state of every job there is, once none is left to do."""
    deadline = time.monotonic() + JOB_S
    while time.monotonic() < deadline:
        waiting = [
            (await client.get("/jobs", params={"state": one, "limit": 1})).json() for one in ("queued", "running")
        ]
        if not any(one["jobs"] for one in waiting):
            break
        await asyncio.sleep(2.0)
    states, page = dict[str, str](), "/jobs?limit=500"
    while page:
        answer = (await client.get(page)).raise_for_status().json()
        states |= {job["id"]: job["state"] for job in answer["jobs"]}
        page = answer["next"]
    return states


def _counted(page: str) -> dict[str, float]:
    """What the metrics say became of all jobs ever, those of the uploads included."""
    found = Counter[str]()
    for outcome, value in re.findall(r'^ncagate_jobs_total{[^}]*outcome="(\w+)"[^}]*} (\S+)', page, re.MULTILINE):
        found[outcome] += float(value)  # type: ignore[assignment]  # a Counter's values may be
    return dict(found)


def _say(text: str, figures: dict[str, Any]) -> None:
    console.print(text.format(**figures), soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
