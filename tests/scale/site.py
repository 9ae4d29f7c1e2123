"""Gateways and workers with a data folder each, as on machines of their own; PostgreSQL, Redis and S3 they share."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.chaos.client import PATIENCE_S, Client
from tests.chaos.processes import Fleet, Part, until
from tests.chaos.servers import Postgres, Redis, free_port
from tests.scale.receiver import Receiver
from tests.scale.s3 import S3Server

START_S = 60.0
SETTINGS = {
    "NCAGATE_WORKERS": "1",
    "NCAGATE_THREADS": "1",
    "NCAGATE_LEASE_S": "8",
    "NCAGATE_RECONCILE_S": "0.3",
    "NCAGATE_SOFT_SHUTDOWN_S": "1",
    "NCAGATE_CLIENT_RATE_MAX": "10000",
    "NCAGATE_DISK_FREE_MIN": "1",
    "NCAGATE_KEEP_DAYS": "1",
    "NCAGATE_LOG_FORMAT": "json",
}


class Site:
    """A deployment on several machines; ``client`` speaks with all its gateways."""

    def __init__(
        self, folder: Path, s3: S3Server, *, scan: bytes, models: Path, gateways: int = 2, workers: int = 2
    ) -> None:
        self.fleet, self.s3, self.folder = Fleet(), s3, folder
        self.points = folder / "points"
        for one in (self.points, folder / "redis"):
            one.mkdir()
        self.bucket, self.receiver = s3.bucket(), Receiver()
        (folder / "secret").write_text(f"whsec_{base64.b64encode(os.urandom(32)).decode()}")
        self._publish(models)
        self.redis = Redis(self.fleet, folder / "redis")
        self.postgres = Postgres(self.fleet, folder / "postgresql.log")
        self.client = Client([free_port() for _ in range(gateways)], scan)
        for number, url in enumerate(self.client.urls):
            self._add(f"gateway-{number}", NCAGATE_PORT=url.rpartition(":")[2])
        for number in range(workers):
            self._add(f"worker-{number}")
        self._add("deliver-0")
        until(lambda: all(self._answers(one) for one in range(gateways)), START_S, "the gateways answer")
        self.client.segment()

    def data(self, name: str) -> Path:
        """The folder of one machine."""
        return self.folder / f"machine of {name}"

    def objects(self) -> list[str]:
        """Keys of what belongs to jobs."""
        return [key for key in self.s3.keys(self.bucket) if key.startswith("ncagate/jobs/")]

    def files(self, name: str) -> list[Path]:
        """Whatever of jobs lies on one machine."""
        return [one for one in (self.data(name) / "blobs").rglob("*") if one.is_file()]

    def log(self, name: str) -> str:
        """What a process has said."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    @contextmanager
    def held(self, point: str) -> Iterator[tuple[str, str]]:
        """Inside, a worker stands at that point with a new job: the job, and the worker's name."""
        (self.points / point).touch()
        try:
            job_id = self.client.submit()
            until(lambda: any(self.points.glob(f"{point}.*")), PATIENCE_S, f"a worker stands at {point}")
            (held,) = self.points.glob(f"{point}.*")
            pools = {part.name: part.pool() for part in self.fleet.up("worker")}
            pid = int(held.suffix[1:])
            (name,) = [name for name, pool in pools.items() if pool is not None and pool.pid == pid]
            yield job_id, name
        finally:
            for one in [self.points / point, *self.points.glob(f"{point}.*")]:
                one.unlink(missing_ok=True)

    def close(self) -> None:
        """Stop everything."""
        self.fleet.stop()
        self.receiver.close()
        self.postgres.close()

    def _publish(self, models: Path) -> None:
        """By the command, as an administrator does."""
        environment = os.environ | self.s3.environment
        environment |= {"NCAGATE_DATA": str(self.folder / "desk"), "NCAGATE_STORE_URL": f"s3://{self.bucket}/models"}
        for words in (["push", "tiny", "1.0.0", "--source", str(models)], ["promote", "tiny", "1.0.0"]):
            command = [sys.executable, "-m", "ncagate.cli", "models", *words]
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr

    def _add(self, name: str, **settings: str) -> None:
        environment = {
            **SETTINGS,
            **settings,
            **self.s3.environment,
            "NCAGATE_DATA": str(self.data(name)),
            "NCAGATE_DATABASE_URL": self.postgres.url,
            "NCAGATE_REDIS_URL": f"redis://127.0.0.1:{self.redis.port}/0",
            "NCAGATE_BLOBS_URL": f"s3://{self.bucket}/ncagate",
            "NCAGATE_STORE_URL": f"s3://{self.bucket}/models",
            "NCAGATE_WEBHOOK_HOSTS": self.receiver.url.removeprefix("http://"),
            "NCAGATE_WEBHOOK_SECRET_FILE": str(self.folder / "secret"),
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.receiver.url,
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            "CHAOS_POINTS": str(self.points),
        }
        line = [sys.executable, "-m", "tests.chaos.launcher", name.partition("-")[0]]
        self.fleet.add(Part(name, line, log=self.folder / f"{name}.log", environment=environment))

    def _answers(self, number: int) -> bool:
        assert self.fleet.parts[f"gateway-{number}"].running, self.log(f"gateway-{number}")
        return self.client.alive(number)
