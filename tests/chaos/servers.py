"""A Redis and a PostgreSQL of the stack's own: on free ports, in folders of their own, as nobody else's."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
import redis

from ncagate.private_redis import find_server
from tests.chaos.processes import Fleet, Part, until

START_S = 30.0
NAME = "redis"
DATABASE = "postgresql"
SUPERUSER = "ncagate"
UNPRIVILEGED = "postgres"
"""PostgreSQL refuses to run as root; its Debian package makes this user."""
QUEUE = "segment"


def free_port() -> int:
    """A TCP port that nobody has."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def missing(what: str) -> None:
    """Skip the test, as this is not here; where CI=true fail it."""
    if os.environ.get("CI") == "true":
        pytest.fail(what)
    pytest.skip(what)


class Redis:
    """A broker on TCP; what it has acknowledged it knows again after a kill, unless its memory is wiped."""

    def __init__(self, fleet: Fleet, folder: Path) -> None:
        self._fleet = fleet
        self._folder = folder
        self.port = free_port()
        options = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(folder),
            "save": "",
            "appendonly": "yes",
            "appendfsync": "always",
            "loglevel": "warning",
        }
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        fleet.add(Part(NAME, [find_server(), *words], log=folder.parent / "redis.log"))
        self.wait()

    def client(self) -> redis.Redis:
        """A connection past every proxy."""
        return redis.Redis(port=self.port, socket_timeout=5.0)

    def wait(self) -> None:
        """Until it answers."""
        until(self._answers, START_S, "redis-server answers")

    def kill(self, *, wiped: bool) -> None:
        """Kill it; ``wiped``: it will have forgotten everything."""
        self._fleet.kill(NAME)
        if wiped:
            shutil.rmtree(self._folder)
            self._folder.mkdir()

    def revive(self) -> None:
        """Start it again."""
        self._fleet.revive(NAME)
        self.wait()

    def duplicate(self, times: int = 1) -> int:
        """Put every waiting message into the queue again, as it lies there; how many are waiting now."""
        with self.client() as client:
            messages = client.lrange(QUEUE, 0, -1)
            assert isinstance(messages, list)
            for one in messages * times:
                client.rpush(QUEUE, one)
            return len(messages) * (times + 1)

    def _answers(self) -> bool:
        with suppress(redis.RedisError), self.client() as client:
            return bool(client.ping())
        return False


class Postgres:
    """A cluster in a temporary folder. Without fsync: processes are killed here, never the machine."""

    def __init__(self, fleet: Fleet, log: Path) -> None:
        self._fleet = fleet
        self._user = UNPRIVILEGED if os.geteuid() == 0 else None
        self._folder = Path(tempfile.mkdtemp(prefix="ncagate-chaos-"))
        self.port = free_port()
        self.url = f"postgresql://{SUPERUSER}@127.0.0.1:{self.port}/postgres"
        binaries = find_binaries()
        data = self._folder / "data"
        self._initialise(binaries, data)
        options = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off"}
        words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        command = [str(binaries / "postgres"), "-D", str(data), "-p", str(self.port), *words]
        self._part = fleet.add(Part(DATABASE, command, log=log, user=self._user))
        self.wait()

    def wait(self) -> None:
        """Until it answers; one that was killed comes up only when its last orphan is gone."""
        until(self._answers, START_S, "PostgreSQL answers")

    def kill(self) -> None:
        """Kill the whole server at once: its first process, whose death ends the others."""
        self._fleet.kill(DATABASE)

    def revive(self) -> None:
        """Start it again; it recovers from its log."""
        self._fleet.revive(DATABASE)
        self.wait()

    def close(self) -> None:
        """Stop it and remove its folder."""
        self._part.end(signal.SIGINT)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _initialise(self, binaries: Path, data: Path) -> None:
        if self._user is not None:
            entry = pwd.getpwnam(self._user)
            os.chown(self._folder, entry.pw_uid, entry.pw_gid)
        command = [str(binaries / "initdb"), "-D", str(data), "-U", SUPERUSER, "-A", "trust", "-E", "UTF8", "--no-sync"]
        subprocess.run(command, check=True, capture_output=True, user=self._user, cwd=self._folder)

    def _answers(self) -> bool:
        if not self._part.running:
            self._part.start()  # it refused: an orphan of the killed one was still there
        with suppress(psycopg.OperationalError), psycopg.connect(self.url, connect_timeout=2):
            return True
        return False


def find_binaries() -> Path:
    """The folder of initdb and postgres; where there is none the test is skipped, and fails where CI=true."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    found = [path for path in folders if (path / "initdb").exists()]
    if not found:
        on_path = shutil.which("initdb")
        if on_path is None:
            missing("no initdb: apt-get install postgresql")
        return Path(str(on_path)).parent
    return found[-1]
