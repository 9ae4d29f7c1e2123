"""How a worker stops: its processes finish what they are at, or hand it back when that takes too long."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable

from billiard import active_children

POLL_S = 0.02
HAND_BACK_S = 5.0
"""How long the processes have to hand their work back, once the worker waits for them no longer."""


def end_after(seconds: float, last: Callable[[], None] = lambda: None) -> None:
    """In the parent, which was told to stop and waits for its processes: it waits so long and not longer.

    ``last`` is what it does before it ends.
    """
    timer = threading.Timer(seconds, _end, [last])
    timer.daemon = True
    timer.start()


def _end(last: Callable[[], None]) -> None:
    children = active_children()
    for child in children:
        child.terminate()
    deadline = time.monotonic() + HAND_BACK_S
    while time.monotonic() < deadline and any(_runs(child.pid) for child in children):
        time.sleep(POLL_S)
    last()
    os._exit(0)


def _runs(pid: int) -> bool:
    """Whether a child has not ended yet; it stays unreaped, as the thread that waits for it is another one's."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except ChildProcessError:
        return False


def hand_back_when_stopped(hand_back: Callable[[], None]) -> None:
    """In a process: SIGTERM is how the parent ends it when its work takes longer than a stopping worker waits.

    A thread waits for it: the main one may be in the engine for seconds, where no handler runs.
    """

    def wait() -> None:
        signal.sigwait({signal.SIGTERM})
        try:
            hand_back()
        finally:
            os._exit(0)

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=wait, name="hand-back", daemon=True).start()
