"""Four hosts, each a network namespace with an address of its own, and a fifth that has the servers.

    unshare --net python -m tests.scale.hosts FOLDER

Prints what came of it as JSON. FOLDER holds the scan and the folder `models`. It runs in a namespace of its own, so
nothing of it is seen on the machine.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx

from tests.chaos.processes import Fleet, Part, until
from tests.chaos.proxy import FaultProxy
from tests.chaos.servers import Postgres, Redis
from tests.scale.s3 import S3Server

HUB = "10.77.0.1"
"""Where the servers are."""
HOSTS = {"gateway-0": "10.77.0.10", "gateway-1": "10.77.0.11", "worker-0": "10.77.0.20", "worker-1": "10.77.0.21"}
PATIENCE_S = 60.0
POINT = "segment"
FINAL = ("succeeded", "failed", "cancelled")


class Hosts:
    """The network, and what runs on it."""

    def __init__(self, folder: Path) -> None:
        self.fleet, self.folder, self.points = Fleet(), folder, folder / "points"
        self.cables: dict[str, str] = {}
        self._wire()
        for one in (self.points, folder / "redis"):
            one.mkdir()
        redis, postgres = Redis(self.fleet, folder / "redis"), Postgres(self.fleet, folder / "postgresql.log")
        s3 = S3Server(self.fleet, folder / "s3.log")
        self.s3, self.bucket, self._postgres = s3, s3.bucket(), postgres
        doors = {one: FaultProxy(one, host=HUB).port for one in (redis.port, postgres.port, s3.port)}
        self.environment = {
            **s3.environment,
            "AWS_ENDPOINT_URL_S3": f"http://{HUB}:{doors[s3.port]}",
            "NCAGATE_DATABASE_URL": postgres.url.replace(f"127.0.0.1:{postgres.port}", f"{HUB}:{doors[postgres.port]}"),
            "NCAGATE_REDIS_URL": f"redis://{HUB}:{doors[redis.port]}/0",
            "NCAGATE_BLOBS_URL": f"s3://{self.bucket}/ncagate",
            "NCAGATE_STORE_URL": f"s3://{self.bucket}/models",
            "NCAGATE_THREADS": "1",
            "NCAGATE_LEASE_S": "8",
            "NCAGATE_RECONCILE_S": "0.3",
            "NCAGATE_DISK_FREE_MIN": "1",
            "CHAOS_POINTS": str(self.points),
        }
        self.ncagate("models", "push", "tiny", "1.0.0", "--source", str(folder / "models"))
        self.start("gateway-0", NCAGATE_HOST=HOSTS["gateway-0"])
        until(lambda: self.alive("gateway-0"), PATIENCE_S, "the first gateway answers")
        key = str(self._key())
        self.ncagate("keys", "create", "tests", "--scope", "submit", "--scope", "read", "--secret-file", key)
        for name in ("gateway-1", "worker-0", "worker-1"):
            self.start(name, **({"NCAGATE_HOST": HOSTS[name]} if name.startswith("gateway") else {}))
        until(lambda: self.alive("gateway-1"), PATIENCE_S, "the second gateway answers")

    def ask(self, name: str, method: str, path: str, **options: Any) -> httpx.Response:
        """A request to the gateway on this host."""
        headers = {"Authorization": f"Bearer {(self.folder / 'key').read_text()}"}
        return httpx.request(method, f"http://{HOSTS[name]}:8000{path}", headers=headers, timeout=30.0, **options)

    def alive(self, name: str) -> bool:
        """Whether it answers."""
        try:
            return httpx.get(f"http://{HOSTS[name]}:8000/livez", timeout=5.0).status_code == 200
        except httpx.TransportError:
            return False

    def ended(self, job_id: str) -> dict[str, Any]:
        """The job once it has, as the second gateway sees it."""

        def job() -> dict[str, Any]:
            found: dict[str, Any] = self.ask("gateway-1", "GET", f"/jobs/{job_id}").json()
            return found

        until(lambda: job()["state"] in FINAL, PATIENCE_S, "the job ends")
        return job()

    def submit(self) -> str:
        """A scan, to the first gateway."""
        scan = (self.folder / "scan.nii.gz").read_bytes()
        answer = self.ask("gateway-0", "POST", "/segment", files={"scan": scan}, data={"model": "tiny"})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def holder(self) -> str:
        """The host whose worker stands at the point."""
        until(lambda: any(self.points.glob(f"{POINT}.*")), PATIENCE_S, "a worker stands there")
        (held,) = self.points.glob(f"{POINT}.*")
        owners = {part.name: [one.pid for one in part.children()] for part in self.fleet.up("worker")}
        (name,) = [name for name, pids in owners.items() if int(held.suffix[1:]) in pids]
        return name

    def cable(self, name: str, state: str) -> None:
        """Pull a host's cable (`down`), or plug it in (`up`)."""
        _run("ip", "link", "set", self.cables[name], state)

    def start(self, name: str, **settings: str) -> None:
        """Start a process on its host, with a data folder of its own."""
        environment = {**self.environment, "NCAGATE_DATA": str(self.folder / f"machine of {name}"), **settings}
        enter = ["nsenter", f"--net=/proc/{self.fleet.parts[f'host {name}'].pid}/ns/net", "--"]
        line = [*enter, sys.executable, "-m", "tests.chaos.launcher", name.partition("-")[0]]
        self.fleet.add(Part(name, line, log=self.folder / f"{name}.log", environment=environment))

    def ncagate(self, *words: str) -> None:
        """Run a command at the hub."""
        environment = os.environ | self.environment | {"NCAGATE_DATA": str(self.folder / "desk")}
        subprocess.run([sys.executable, "-m", "ncagate.cli", *words], env=environment, check=True, stdout=sys.stderr)

    def close(self) -> None:
        """Stop everything."""
        self.fleet.stop()
        self.s3.close()
        self._postgres.close()

    def _wire(self) -> None:
        _run("ip", "link", "set", "lo", "up")
        _run("ip", "link", "add", "hub", "type", "bridge")
        _run("ip", "address", "add", f"{HUB}/24", "dev", "hub")
        _run("ip", "link", "set", "hub", "up")
        for number, (name, address) in enumerate(HOSTS.items()):
            host = self.fleet.add(
                Part(f"host {name}", ["unshare", "--net", "sleep", "infinity"], log=self.folder / "hosts.log")
            )
            until(lambda pid=host.pid: _apart(pid), PATIENCE_S, "the host has a network of its own")  # type: ignore[misc]
            self.cables[name], inner = f"cable{number}", f"inner{number}"
            _run("ip", "link", "add", self.cables[name], "type", "veth", "peer", "name", inner, "netns", str(host.pid))
            _run("ip", "link", "set", self.cables[name], "master", "hub", "up")
            within = ("nsenter", f"--net=/proc/{host.pid}/ns/net", "--", "ip")
            _run(*within, "link", "set", "lo", "up")
            _run(*within, "address", "add", f"{address}/24", "dev", inner)
            _run(*within, "link", "set", inner, "up")

    def _key(self) -> Path:
        path = self.folder / "key"
        path.write_text(f"ncg_{os.urandom(32).hex()}")
        return path


def _apart(pid: int) -> bool:
    return Path(f"/proc/{pid}/ns/net").readlink() != Path("/proc/self/ns/net").readlink()


def _run(*words: str) -> None:
    subprocess.run(words, check=True)


def _tell(hosts: Hosts) -> dict[str, Any]:
    first = hosts.submit()
    done = hosts.ended(first)
    mask = hosts.ask("gateway-1", "GET", f"/jobs/{first}/mask").content
    (hosts.points / POINT).touch()
    second = hosts.submit()
    lost = hosts.holder()
    hosts.cable(lost, "down")
    ended = hosts.ended(second)
    again = hosts.ask("gateway-1", "GET", f"/jobs/{second}/mask").content
    hosts.cable(lost, "up")
    return {
        "first": done["state"],
        "second": ended["state"],
        "again": ended["attempt"] > 1,
        "same": mask == again and mask[:2] == b"\x1f\x8b",
        "erased": [hosts.ask("gateway-0", "DELETE", f"/jobs/{one}").status_code for one in (first, second)],
        "left": [key for key in hosts.s3.keys(hosts.bucket) if "/jobs/" in key],
    }


if __name__ == "__main__":
    running = Hosts(Path(sys.argv[1]))
    try:
        print(json.dumps(_tell(running)))
    finally:
        running.close()
