"""A small disk that can be filled: a tmpfs, mounted as root or in a mount namespace of its own."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.chaos.processes import until
from tests.chaos.servers import missing

BYTES = 64 * 1024 * 1024
CHUNK = 1024 * 1024
FILLER = "filler"


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A folder on a disk of 64 MiB; where none can be mounted the test is skipped, and fails where CI=true.

    Without root it lies in another process's mount namespace, which the kernel shows under that one's /proc entry.
    """
    mount = ["mount", "-t", "tmpfs", "-o", f"size={BYTES}", "chaos", str(folder)]
    if os.geteuid() == 0 and subprocess.run(mount, capture_output=True).returncode == 0:
        try:
            yield folder
        finally:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
        return
    if shutil.which("unshare") is None:
        missing("no tmpfs can be mounted: neither root nor unshare (util-linux)")
    line = f"{' '.join(mount)} && echo mounted && exec sleep 100000"
    with subprocess.Popen(["unshare", "-rm", "sh", "-c", line], stdout=subprocess.PIPE, text=True) as holder:
        try:
            if holder.stdout is None or holder.stdout.readline() != "mounted\n":
                missing("no tmpfs can be mounted: neither root nor user namespaces")
            yield Path(f"/proc/{holder.pid}/root{folder}")
        finally:
            holder.kill()


def fill(folder: Path) -> None:
    """Take every byte that is free."""
    with (folder / FILLER).open("ab", buffering=0) as file:
        size = CHUNK
        while size:
            try:
                file.write(bytes(size))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                size //= 2


def free(folder: Path) -> None:
    """Give it back."""
    (folder / FILLER).unlink(missing_ok=True)


def wait_full(folder: Path) -> None:
    """Until not a page is free."""
    until(lambda: os.statvfs(folder).f_bavail == 0, 5.0, "the disk is full")
