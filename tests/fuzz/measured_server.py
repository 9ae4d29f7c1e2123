"""`imaging.sandbox_server`, which also notes what each reader took: its peak in KiB, in the file that is named."""

import os
import sys
from pathlib import Path

from imaging import sandbox_server


def wait(child: int, options: int) -> tuple[int, int]:
    """As `os.waitpid`."""
    _, status, used = os.wait4(child, options)
    Path(sys.argv[1]).write_text(str(used.ru_maxrss), encoding="ascii")
    return child, status


if __name__ == "__main__":
    os.waitpid = wait
    sandbox_server.main()
