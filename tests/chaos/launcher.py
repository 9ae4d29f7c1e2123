"""`ncagate worker` or `ncagate gateway`, which stands still at named points when told to, and whose clock can be set.

    python -m tests.chaos.launcher worker

An order is a file in the folder ``CHAOS_POINTS`` that has the name of a point. The process that reaches the point first
takes it, by renaming it to ``<point>.<process id>``, and waits there until that file is gone; its other threads go on.
A second order, for the next process, has `SECOND` behind its name.
The file ``clock`` in that folder holds the seconds by which the clock is wrong. Nothing else differs from the command.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Any

from tests.chaos.points import AHEAD, SECOND, SHADOW

FOLDER = Path(os.environ["CHAOS_POINTS"])
VISIBILITY = "CHAOS_VISIBILITY_S"
"""Environment variable: after so many seconds Redis hands an unacknowledged message out again."""


def reach(point: str) -> None:
    """Stand still here, where that is ordered."""
    held = FOLDER / f"{point}.{os.getpid()}"
    for order in (FOLDER / point, FOLDER / f"{point}{SECOND}"):
        with suppress(FileNotFoundError):
            order.rename(held)
            break
    while held.exists():
        time.sleep(0.01)


def _before(owner: type, name: str, point: Callable[..., str]) -> None:
    original = getattr(owner, name)

    @wraps(original)
    def wrapped(*args: Any, **options: Any) -> Any:
        reach(point(*args))
        return original(*args, **options)

    setattr(owner, name, wrapped)


def _after(owner: type, name: str, point: str) -> None:
    original = getattr(owner, name)

    @wraps(original)
    def wrapped(*args: Any, **options: Any) -> Any:
        answer = original(*args, **options)
        reach(point)
        return answer

    setattr(owner, name, wrapped)


def _after_some(owner: type, name: str, point: str) -> None:
    """As `_after`, where it came to something."""
    original = getattr(owner, name)

    @wraps(original)
    def wrapped(*args: Any, **options: Any) -> Any:
        answer = original(*args, **options)
        if answer is not None:
            reach(point)
        return answer

    setattr(owner, name, wrapped)


def _shift_clock() -> None:
    real, file = time.time, FOLDER / "clock"

    def shifted() -> float:
        try:
            return real() + float(file.read_text())
        except (FileNotFoundError, ValueError):  # not set, or just being written
            return real()

    time.time = shifted


def _mark_gateway() -> None:
    from jobs.blobs import Blobs
    from jobs.repository import JobRepository

    _after(Blobs, "commit_input", "stored")
    _after(JobRepository, "create", "queued")


def _mark_worker(**_: Any) -> None:
    """In a new worker process, as its parent imports nothing of this."""
    from jobs.blobs import Blobs
    from jobs.repository import JobRepository
    from jobs.shadow import Shadows
    from worker.heart import Heart
    from worker.run import Runner

    _before(Runner, "run_next", lambda *args: "delivered")
    _after(Heart, "__enter__", "claimed")
    _before(Heart, "report", lambda heart, stage, *args: str(stage))
    _after_some(Runner, "_take_following", AHEAD)
    _after(Blobs, "commit_result", "committed")
    _after(JobRepository, "succeed", "succeeded")
    _after(Shadows, "begin", SHADOW)


def main() -> None:
    """Run the command, marked."""
    _shift_clock()  # first: some take `time.time` with them when they are imported
    from celery.signals import worker_process_init

    from ncagate import cli

    worker_process_init.connect(_mark_worker, weak=False)
    if sys.argv[1:] == ["gateway"]:
        _mark_gateway()
    elif VISIBILITY in os.environ:
        from worker.app import celery_app

        hasty = {"visibility_timeout": int(os.environ[VISIBILITY])}
        hasty |= {"unacked_restore_interval": 1, "unacked_restore_throttle": 1}  # otherwise 100 s between two looks
        celery_app.conf.broker_transport_options = {**celery_app.conf.broker_transport_options, **hasty}
    cli.main()


if __name__ == "__main__":
    main()
