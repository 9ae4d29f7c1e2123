"""The process behind `imaging.sandbox`: warm, without threads, it forks a child for every scan that is to be read.

A line on standard input asks for a scan (`imaging.sandbox_protocol`); a line on standard output says how the child
ended, and then comes its answer. It ends with its input, and with the process that started it.
"""

from __future__ import annotations

import errno
import math
import os
import resource
import select
import signal
import sys
import time
from pathlib import Path
from typing import BinaryIO, NoReturn

import numpy as np
from numpy.typing import NDArray

from imaging.limits import Limits
from imaging.read import read_scan
from imaging.request import Request
from imaging.sandbox_protocol import (
    ANSWER_BYTES,
    MEMORY,
    VOXELS,
    answer_json,
    map_voxels,
    parse_request,
    refusal_json,
)
from imaging.volume import Shape, Slices
from ncagate.orphans import die_with_parent

CHUNK_BYTES = 1 << 16


def main() -> None:
    """Serve until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started this one, which then ends
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    while line := requests.readline():
        request, folder = parse_request(line)
        status, answer = _read_in_child(request, folder)
        answers.write(f"{status} {len(answer)}\n".encode() + answer)
        answers.flush()


def _read_in_child(request: Request, folder: Path) -> tuple[int, bytes]:
    """How the child ended (exit status, or minus the signal; -SIGXCPU where it was late) and what it answered."""
    ours, theirs = os.pipe()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        die_with_parent(parent)
        os.close(ours)
        _child(request, folder, theirs)
    os.close(theirs)
    try:
        answer, late = _answer_of(child, ours, seconds=request.limits.seconds)
    finally:
        os.close(ours)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return -signal.SIGXCPU if late else status, answer


def _answer_of(child: int, pipe: int, *, seconds: float) -> tuple[bytes, bool]:
    """What the child says until it ends, and whether it was late; it is stopped then, and where nobody waits for it."""
    answer, end = b"", time.monotonic() + seconds
    while len(answer) <= ANSWER_BYTES:
        ready, _, _ = select.select([pipe, sys.stdin], [], [], max(0.0, end - time.monotonic()))
        if pipe in ready:
            chunk = os.read(pipe, CHUNK_BYTES)
            if not chunk:
                return answer, False
            answer += chunk
            continue
        os.kill(child, signal.SIGKILL)
        if ready:  # nothing comes in meanwhile but the end of the input
            sys.exit()
        return b"", True
    os.kill(child, signal.SIGKILL)
    return b"", False


def _child(request: Request, folder: Path, pipe: int) -> NoReturn:
    """Read the scan within the limits, say what became of it, and end at once."""
    status = 1
    try:
        nothing = os.open(os.devnull, os.O_RDWR)  # decoders write on standard error, and must not speak for the server
        for descriptor in (0, 1, 2):
            os.dup2(nothing, descriptor)
        _confine(request.limits)
        with os.fdopen(pipe, "wb") as file:
            status = _answer(request, folder, file)
    finally:
        os._exit(status)


def _answer(request: Request, folder: Path, file: BinaryIO) -> int:
    try:
        answer = answer_json(read_scan(request, _Files(folder)))
    except Exception as error:
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
            return MEMORY
        answer = refusal_json(error)
    file.write(answer)
    return 0


class _Files:
    """Makes room in files: what is put there is with the process that asked, without being sent."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._made = folder, 0

    def __call__(self, shape: Shape) -> Slices:
        self._made += 1
        return _InFile(self._folder / VOXELS.format(self._made - 1), shape)


class _InFile:
    """`Slices` in a file. Written, not mapped: a full disk is then an error and no signal."""

    def __init__(self, path: Path, shape: Shape) -> None:
        self._path, self._shape = path, shape
        self._file = path.open("xb", buffering=0)
        self._file.truncate(4 * math.prod(shape))

    def put(self, k: int, rows: NDArray[np.float32]) -> None:
        """As `Slices.put`."""
        at, data = k * rows.nbytes, rows.data.cast("B")
        while data:
            written = os.pwrite(self._file.fileno(), data, at)
            at, data = at + written, data[written:]

    def array(self) -> NDArray[np.float32]:
        """As `Slices.array`."""
        return map_voxels(self._path, self._shape)


def _confine(limits: Limits) -> None:
    """Bound memory above what the server has, files and processor time; leave no core, which would hold the scan."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    largest = max(limits.unpacked_bytes, 4 * limits.voxels)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))  # an error for whoever writes more: Python sees to it
    resource.setrlimit(resource.RLIMIT_CPU, (limits.seconds, limits.seconds + 1))  # first SIGXCPU, then SIGKILL
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        most = pages * resource.getpagesize() + limits.memory
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


if __name__ == "__main__":
    main()
