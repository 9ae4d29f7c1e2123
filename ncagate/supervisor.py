"""Child processes that are started again when they die, and stopped in order."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import FrameType

from ncagate.orphans import die_with_parent

FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 30.0
"""The pause before a restart doubles between these two with every death."""
STEADY_S = 60.0
"""A child that lived this long starts again with the first pause."""
POLL_S = 0.05
STDERR = 2
"""Whatever children print goes to stderr: stdout is the supervisor's own."""

log = logging.getLogger("ncagate")


class StopSignals:
    """SIGINT, SIGTERM and SIGHUP as two questions: is it time to stop, and is somebody in a hurry?"""

    def __init__(self) -> None:
        self._asked, self._hurry = threading.Event(), threading.Event()

    def install(self) -> None:
        """Take the signals from now on (main thread only); SIGHUP stays ignored where nohup has said so."""
        for one in (signal.SIGINT, signal.SIGTERM):
            signal.signal(one, self._take)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            signal.signal(signal.SIGHUP, self._take)

    def wait(self, seconds: float) -> bool:
        """Sleep, but not past the first signal; whether there was one."""
        return self._asked.wait(seconds)

    @property
    def hurry(self) -> bool:
        """Whether a second signal came."""
        return self._hurry.is_set()

    def _take(self, number: int, frame: FrameType | None) -> None:
        if self._asked.is_set():
            self._hurry.set()
        self._asked.set()


@dataclass(frozen=True)
class Program:
    """What a child runs.

    Attributes:
        stop_s: how many seconds it has after SIGTERM before it is killed.
        descriptors: open file descriptors that it inherits under the same numbers.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    stop_s: float
    descriptors: tuple[int, ...] = ()


class Child:
    """One supervised process, leader of a process group of its own: a Ctrl-C reaches the supervisor alone."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.deaths = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = self._start_at = 0.0

    @property
    def pid(self) -> int | None:
        """The running process, None between a death and the restart."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start the process."""
        program = self.program
        self._process = subprocess.Popen(  # noqa: S603  # our own programs
            program.command,
            env=program.environment,
            stdin=subprocess.DEVNULL,
            stdout=STDERR,
            pass_fds=program.descriptors,
            process_group=0,
            preexec_fn=partial(die_with_parent, os.getpid()),  # the supervisor has no threads
        )
        self._started_at = time.monotonic()

    def tend(self) -> bool:
        """Notice a death, start again when the pause is over; whether another process than before is running."""
        now = time.monotonic()
        if self._process is None:
            if now < self._start_at:
                return False
            self.start()
            return True
        status = self._process.poll()
        if status is None:
            return False
        self._bury()
        self.deaths = 1 if now - self._started_at > STEADY_S else self.deaths + 1
        pause = min(FIRST_PAUSE_S * 2 ** (self.deaths - 1), LONGEST_PAUSE_S)
        self._start_at = now + pause
        log.warning("the %s stopped (%s); it is started again in %.2g s", self.program.name, _cause(status), pause)
        return False

    def stop(self, signals: StopSignals) -> None:
        """Ask it to stop, wait, and kill what is left of its group."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + self.program.stop_s
        while self._process.poll() is None and time.monotonic() < deadline and not signals.hurry:
            time.sleep(POLL_S)
        if self._process.poll() is None:
            log.warning("the %s did not stop in time and is killed", self.program.name)
        self._bury()

    def _bury(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


def _cause(status: int) -> str:
    return f"exit code {status}" if status >= 0 else signal.Signals(-status).name
