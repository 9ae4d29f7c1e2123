"""Reading in a process of its own: a hostile file may break the reader down, but nothing else.

A server (`imaging.sandbox_server`), started once in every process that reads, forks a child for every scan.
"""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import IO

from imaging.errors import ReaderCrashedError, ReaderOutOfMemoryError, ReaderTimeoutError
from imaging.request import Request
from imaging.sandbox_protocol import MEMORY, parse_answer, request_json
from imaging.volume import Volume

KEPT = ("PATH", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR", "TZ")
"""Environment of the reader: no password is in it."""
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""A process that forks must have no threads of libraries."""


def read_in_sandbox(request: Request) -> Volume:
    """As `imaging.read.read_scan`, in a process of its own; the voxels are mapped from a file in the workdir.

    One scan at a time: others wait.

    Raises:
        ReaderCrashedError, ReaderOutOfMemoryError, ReaderTimeoutError: what the scan did to the process.
        ImagingError: it cannot be read, as `imaging.read.read_scan` says.
        OSError: the file system refused something.
        ReaderLostError: the process was ended from outside, twice; the scan is not to blame.
    """
    folder = Path(tempfile.mkdtemp(dir=request.workdir))
    status, answer = _server.ask(request_json(request, folder))
    if status < 0:
        raise _death(-status)
    if status == MEMORY:
        raise ReaderOutOfMemoryError("reading the scan takes more memory than is allowed")
    return parse_answer(answer, request, folder)


def start_sandbox() -> None:
    """Start the server now, if it does not run, so that it is ready when the first scan comes; does not wait."""
    _server.start()


def _death(number: int) -> Exception:
    """What a signal that ended the reader means."""
    if number == signal.SIGXCPU:
        return ReaderTimeoutError("reading the scan takes longer than is allowed")
    if number == signal.SIGKILL:  # by the kernel, where the machine has too little
        return ReaderOutOfMemoryError("reading the scan takes more memory than there is")
    if number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        return ReaderLostError("the process that reads scans was stopped")
    return ReaderCrashedError("the process that read the scan broke down on it")


class ReaderLostError(RuntimeError):
    """The process that reads scans is gone, by no fault of a scan; trying again makes sense."""


class _Server:
    """The server process of this process; a fork of this process makes its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, line: bytes) -> tuple[int, bytes]:
        """How the reader ended (its exit status, or minus the signal) and what it answered."""
        with self._lock:
            for _ in range(2):  # between two scans it may have been killed
                answer = self._try(line)
                if answer is not None:
                    return answer
                self._stop()
        raise ReaderLostError("the process that reads scans is gone")

    def start(self) -> None:
        with self._lock:
            self._running()

    def stop(self) -> None:
        with self._lock:
            self._stop()

    def forget(self) -> None:
        """In a fork: the process is the parent's, and must not outlive it because of a copy of its pipes."""
        self._lock = threading.Lock()
        if self._process is not None:
            nothing = os.open(os.devnull, os.O_RDWR)
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    os.dup2(nothing, pipe.fileno())
            os.close(nothing)
            self._process.returncode = 0  # nobody here waits for it
            self._process = None

    def _try(self, line: bytes) -> tuple[int, bytes] | None:
        requests, answers = self._running()
        try:
            requests.write(line)
            requests.flush()
            head = answers.readline().split()
            if len(head) != 2:
                return None
            status, size = (int(one) for one in head)
            answer = answers.read(size)
        except (BrokenPipeError, ConnectionResetError):
            return None
        return (status, answer) if len(answer) == size else None

    def _running(self) -> tuple[IO[bytes], IO[bytes]]:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "imaging.sandbox_server"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={name: os.environ[name] for name in KEPT if name in os.environ} | ONE_THREAD,
            )
        requests, answers = self._process.stdin, self._process.stdout
        if requests is None or answers is None:
            raise ReaderLostError("the process that reads scans has no pipes")
        return requests, answers

    def _stop(self) -> None:
        if self._process is not None:
            with suppress(BrokenPipeError), self._process:  # leaving closes its pipes and waits for it
                self._process.kill()
            self._process = None


_server = _Server()
atexit.register(_server.stop)
os.register_at_fork(after_in_child=_server.forget)
