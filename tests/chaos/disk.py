"""A small disk that can be filled: a tmpfs, mounted as root or in a mount namespace of its own."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BYTES = 64 * 1024 * 1024
CHUNK = 1024 * 1024
FILLER = "filler"


@contextmanager
def small_disk(folder: Path) -> Iterator[Path | None]:
    """A folder on a disk of 64 MiB; None where none can be mounted.

    Without root it lies in another process's mount namespace, which the kernel shows under that one's /proc entry.
    """
    mount = ["mount", "-t", "tmpfs", "-o", f"size={BYTES}", "chaos", str(folder)]
    if os.geteuid() == 0 and subprocess.run(mount, capture_output=True).returncode == 0:
        try:
            yield folder
        finally:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
    elif shutil.which("unshare") is None:
        yield None
    else:
        line = f"{' '.join(mount)} && echo mounted && exec sleep infinity"
        with subprocess.Popen(["unshare", "-rm", "sh", "-c", line], stdout=subprocess.PIPE, text=True) as holder:
            try:
                mounted = holder.stdout is not None and holder.stdout.readline() == "mounted\n"
                yield Path(f"/proc/{holder.pid}/root{folder}") if mounted else None
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
