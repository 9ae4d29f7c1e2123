"""A RabbitMQ of the tests' own: on free ports, with a name server and folders of its own, as nobody else's."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from contextlib import suppress
from pathlib import Path

from tests.chaos.processes import Fleet, Part, until
from tests.chaos.servers import free_port, missing

BINARY = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
NAME = "rabbitmq"
START_S = 120.0


class RabbitMQ:
    """A broker; what it holds is gone with it."""

    def __init__(self, fleet: Fleet, folder: Path) -> None:
        if not BINARY.exists():
            missing("no RabbitMQ: apt-get install rabbitmq-server")
        self._fleet, self._folder = fleet, folder
        self.port, self._names = free_port(), str(free_port())
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}//"
        (folder / "rabbitmq.conf").write_text(f"listeners.tcp.1 = 127.0.0.1:{self.port}\nloopback_users.guest = true\n")
        environment = {
            "HOME": str(folder),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": self._names,
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_NODENAME": f"test{self.port}@localhost",
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 -kernel inet_dist_use_interface {127,0,0,1}",
        }
        self._part = fleet.add(Part(NAME, [str(BINARY)], log=folder / "rabbitmq.log", environment=environment))
        self.wait()

    def wait(self) -> None:
        """Until it takes connections."""
        until(self._answers, START_S, "RabbitMQ answers")

    def kill(self) -> None:
        """Kill it with all that it started; it will have forgotten everything."""
        self._part.signal(signal.SIGKILL)
        self._part.process.wait()
        self._fleet.down.add(NAME)
        shutil.rmtree(self._folder / "data")

    def revive(self) -> None:
        """Start it again."""
        self._fleet.revive(NAME)
        self.wait()

    def close(self) -> None:
        """End it, and its name server, which outlives it otherwise."""
        self._part.end(signal.SIGTERM, patience_s=30.0)
        environment = os.environ | {"ERL_EPMD_PORT": self._names}
        subprocess.run(["epmd", "-port", self._names, "-kill"], env=environment, capture_output=True)

    def _answers(self) -> bool:
        assert self._part.running, self._part.log.read_text()
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1.0) as probe:
            probe.settimeout(2.0)
            probe.sendall(b"AMQP\x00\x00\x09\x01")
            return probe.recv(1) == b"\x01"  # a method frame: it speaks
        return False
