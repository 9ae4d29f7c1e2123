"""The whole stack as real processes: what is done to it, and what must hold after that."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from jobs.blobs import YOUNG_S, Blobs
from tests.chaos.client import PATIENCE_S, Client
from tests.chaos.disk import free
from tests.chaos.figures import Figures
from tests.chaos.ledger import Findings, Ledger
from tests.chaos.points import AHEAD, GATEWAY_POINTS, SECOND, WORKER_POINTS
from tests.chaos.processes import Fleet, Part, until
from tests.chaos.proxy import FaultProxy, Network
from tests.chaos.servers import Postgres, Redis, free_port

START_S = 60.0
LEASE_S = 2.0
SHADOW_S = 10.0
SEEDS = 4
"""Jobs ask for one of so many seeds, whose masks were made before the first fault."""
SETTINGS = {
    "NCAGATE_THREADS": "1",
    "NCAGATE_WORKERS": "1",
    "NCAGATE_LEASE_S": str(LEASE_S),
    "NCAGATE_RECONCILE_S": "0.3",
    "NCAGATE_SOFT_SHUTDOWN_S": "1",
    "NCAGATE_ATTEMPTS_MAX": "20",
    "NCAGATE_CLIENT_RATE_MAX": "10000",
    "NCAGATE_DISK_FREE_MIN": "1",
    "NCAGATE_SHADOW_SHARE": "1",
}
"""Times are short, disks small; attempts are many, so that a job which fails shows a mistake and not bad luck."""


@dataclass(frozen=True)
class Layout:
    """What runs, beside a Redis and a network between it and each worker; ``settings`` are further variables."""

    gateways: int = 1
    workers: int = 1
    postgresql: bool = False
    settings: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Held:
    """A job, and the process that stands still with it."""

    job_id: str
    pid: int


class Rig:
    """A running stack: the data folder is there and holds the model `tiny`, all else goes into ``folder``."""

    def __init__(self, folder: Path, data: Path, layout: Layout, *, scan: bytes, figures: Figures) -> None:
        self.fleet = Fleet()
        self.data, self.points = data, folder / "points"
        self._folder, self._layout, self._figures = folder, layout, figures
        self._faults: list[tuple[str, float]] = []
        self._wrong = False
        for one in (self.points, folder / "redis"):
            one.mkdir()
        self.redis = Redis(self.fleet, folder / "redis")
        self.postgres = Postgres(self.fleet, folder / "postgresql.log") if layout.postgresql else None
        self.networks = [FaultProxy(self.redis.port) for _ in range(layout.workers)]
        self.client = Client([free_port() for _ in range(layout.gateways)], scan)
        for number in range(layout.gateways):
            self._add(f"gateway-{number}", NCAGATE_PORT=self.client.urls[number].rpartition(":")[2])
            self.wait_gateway(number)
        self.ledger = Ledger(self.database)
        for number in range(layout.workers):
            self._add(f"worker-{number}")
        self._masks = {seed: self.client.mask(self.client.segment(seed)) for seed in range(SEEDS)}
        self._forget()

    def _add(self, name: str, **settings: str) -> None:
        command, _, number = name.partition("-")
        port = self.networks[int(number)].port if command == "worker" else self.redis.port
        environment = {
            **SETTINGS,
            **self._layout.settings,
            **settings,
            "NCAGATE_DATA": str(self.data),
            "NCAGATE_DATABASE_URL": self.database,
            "NCAGATE_REDIS_URL": f"redis://127.0.0.1:{port}/0",
            "CHAOS_POINTS": str(self.points),
        }
        line = [sys.executable, "-m", "tests.chaos.launcher", command]
        self.fleet.add(Part(name, line, log=self._folder / f"{name}.log", environment=environment))

    @property
    def database(self) -> str:
        """The URL of the database."""
        return self.postgres.url if self.postgres else f"sqlite:///{self.data / 'ncagate.db'}"

    @property
    def sound(self) -> bool:
        """Whether all that was done to it has been settled, and nothing was wrong."""
        return not (self._wrong or self._faults or self.client.accepted)

    def wait_gateway(self, number: int = 0) -> None:
        """Until the gateway answers."""
        until(lambda: self._answers(number), START_S, f"gateway-{number} answers")

    def log(self, name: str) -> str:
        """What a part has said."""
        return (self._folder / f"{name}.log").read_text(errors="replace")

    def close(self) -> None:
        """Stop everything."""
        self.fleet.stop()
        for network in self.networks:
            network.close()
        self.ledger.close()
        if self.postgres:
            self.postgres.close()

    def _answers(self, number: int) -> bool:
        assert self.fleet.parts[f"gateway-{number}"].running, self.log(f"gateway-{number}")
        return self.client.alive(number)

    # --- faults

    def note(self, kind: str) -> None:
        """A fault of this kind is being made now."""
        self._faults.append((kind, time.time()))

    def order(self, point: str, *, twice: bool = False) -> None:
        """The next process that comes to this point is to stand still there; ``twice``: and the one after it."""
        for name in (point, point + SECOND)[: 1 + twice]:
            (self.points / name).touch()

    def wait_held(self, point: str, *, count: int = 1) -> list[int]:
        """The processes that stand there, once there are so many."""
        until(lambda: len(self._held(point)) >= count, PATIENCE_S, f"processes at the point {point}: {count}")
        return self._held(point)

    def release(self, point: str) -> None:
        """Let everybody go who stands there, and nobody stop there any more."""
        for one in [self.points / point, self.points / (point + SECOND), *self.points.glob(f"{point}.*")]:
            one.unlink(missing_ok=True)

    @contextmanager
    def held(self, point: str, *, seed: int = 0, **fields: str) -> Iterator[Held]:
        """Inside, a process stands at that point with a new job. It is let go afterwards, where it lives."""
        self.order(point)
        try:
            job_id = self.client.submit(seed, **fields)
            yield Held(job_id, self.wait_held(point)[0])
        finally:
            self.release(point)

    def owner_of(self, pid: int) -> str:
        """The name of the gateway that has this identifier, or of the worker whose jobs that process runs."""
        pools = {part.name: part.pool() for part in self.fleet.up("worker")}
        owners = {pool.pid: name for name, pool in pools.items() if pool is not None}
        return (owners | {part.pid: part.name for part in self.fleet.up("gateway")})[pid]

    def turn_clocks(self, seconds: float) -> None:
        """Let the clocks of all gateways and workers jump, to so far from the true time."""
        staged = self.points / "staged"
        staged.write_text(str(seconds))
        staged.rename(self.points / "clock")

    def heal(self) -> None:
        """Undo whatever is still broken."""
        for point in ("clock", AHEAD, *WORKER_POINTS, *GATEWAY_POINTS):
            self.release(point)
        free(self.data)
        for network in self.networks:
            network.become(Network.FINE)
        for part in self.fleet.up():
            part.signal(signal.SIGCONT)
        for name in sorted(self.fleet.down, reverse=True):
            self.revive(name)

    def revive(self, name: str) -> None:
        """Start a killed process again; a server or a gateway answers then."""
        if name.startswith("gateway"):  # without a database, or a free byte, it would end at once
            free(self.data)
            if "postgresql" in self.fleet.down:
                self.revive("postgresql")
        if name not in self.fleet.down:
            return
        self.fleet.revive(name)
        if name == "redis":
            self.redis.wait()
        elif name == "postgresql" and self.postgres:
            self.postgres.wait()
        elif name.startswith("gateway"):
            self.wait_gateway(int(name.partition("-")[2]))

    def _held(self, point: str) -> list[int]:
        return [int(one.suffix[1:]) for one in self.points.glob(f"{point}.*")]

    # --- what must hold

    def settle(self) -> None:
        """Wait for every job's end and one more success; then everything must be as if nothing had happened."""
        findings = self.examine()
        assert not findings, findings

    def examine(self) -> Findings:
        """As `settle`, but says what is wrong. What was found is counted; the jobs that ended are erased."""
        self.fleet.check()
        with suppress(TimeoutError):
            until(lambda: not self.ledger.pending(), PATIENCE_S, "all jobs end")
        stuck = self.ledger.pending()  # asked now: the message of another job may bring them on
        self.client.segment()  # it is writable again
        findings = self.ledger.examine(self.client.accepted, self.client.cancelled)
        findings.stuck = stuck
        wanted = self.ledger.succeeded()
        findings.replaced = [job for job, seed in wanted.items() if self.client.mask(job) != self._masks[seed]]
        findings.miscounted = self._miscounted()
        findings.scratch = self._leftovers()
        self._count(findings)
        self._wrong = bool(findings)
        self.fleet.check()
        return findings

    def _miscounted(self) -> list[str]:
        """Gateways whose metrics do not say what the moves say."""
        moved = dict(self.ledger.totals())
        gateways = range(self._layout.gateways)
        shown = {number: {state: n for state, n in self.client.totals(number).items() if n} for number in gateways}
        return [f"gateway-{number}: {totals}, not {moved}" for number, totals in shown.items() if totals != moved]

    def _leftovers(self) -> list[str]:
        """What is left on the disk that neither belongs to a job nor goes when its time comes.

        The shadow run that the last job was followed by has scratch of its own for a moment.
        """
        with suppress(TimeoutError):
            until(lambda: not self._strays(), SHADOW_S, "shadow runs end")
        return self._strays()

    def _strays(self) -> list[str]:
        root = self.data / "blobs"
        long_ago = time.time() - 2 * YOUNG_S
        jobs = self.ledger.states()
        strays = [one for one in (root / "jobs").iterdir() if one.name not in jobs]
        for one in [*(root / "tmp").iterdir(), *strays]:
            os.utime(one, (long_ago, long_ago))
        Blobs(root).sweep(jobs.__contains__)
        return [one.name for one in root.glob("*/*") if one.name not in jobs]

    def _count(self, findings: Findings) -> None:
        successes = self.ledger.successes()
        for kind, at in self._faults:
            self._figures.recovered(kind, next(one for one in successes if one >= at) - at)
        self._figures.jobs += len(self.client.accepted)
        self._figures.add(findings)
        self._forget()

    def _forget(self) -> None:
        """Erase what has ended."""
        for job_id in self.ledger.ended():
            self.client.delete(job_id)
        self._faults.clear()
        self.client.accepted.clear()
        self.client.cancelled.clear()
