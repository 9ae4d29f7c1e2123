"""What a worker is called, by itself and by those who ask for it."""

from __future__ import annotations

import socket


def worker_name(pid: int) -> str:
    """The Celery node name of the worker whose main process is ``pid`` on this machine."""
    return f"ncagate-{pid}@{socket.gethostname()}"
