"""Runs tests of the native engine on a build of it that has sanitizers in it, in place of the installed one.

    python tests/native/run_sanitized.py WHEEL address|thread [pytest arguments]

Python itself is not instrumented, so the sanitizers' libraries have to be loaded before it: the script sets the
environment and starts itself again. The first report ends the run.
"""

import ctypes
import importlib.util
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULE = "nca.engine.native._core"
ADDR_NO_RANDOMIZE = 0x0040000
"""Of personality(2): a thread sanitizer of GCC 12 cannot live with as much randomness as newer kernels have."""
LIBRARIES = {
    "address": ("libasan.so", "libubsan.so", "libstdc++.so"),
    "thread": ("libtsan.so", "libstdc++.so"),
}
OPTIONS = {
    # An interpreter frees little when it ends; its leaks are not ours.
    "ASAN_OPTIONS": "detect_leaks=0:halt_on_error=1",
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
    # What torch's own threads do is not seen whole, so nothing can be said of it.
    "TSAN_OPTIONS": "halt_on_error=1:ignore_noninstrumented_modules=1:report_signal_unsafe=0",
}


def restart(kind: str) -> None:
    """This script once more, under the sanitizers' libraries."""
    compiler = os.environ.get("CXX", "g++")
    preload = [
        subprocess.run(
            [compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in LIBRARIES[kind]
    ]
    if missing := [name for name in preload if not Path(name).is_absolute()]:
        sys.exit(f"{compiler} has no {', '.join(missing)}")
    ctypes.CDLL(None).personality(ADDR_NO_RANDOMIZE)  # refused in some containers; then it is tried without
    os.environ.update(OPTIONS, LD_PRELOAD=" ".join(preload))
    os.execv(sys.executable, [sys.executable, *sys.argv])


def load(wheel: Path, folder: Path) -> None:
    """Put the wheel's extension module where the installed one would be imported."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (
            one for one in archive.namelist() if one.startswith(MODULE.replace(".", "/") + ".") and "pyi" not in one
        )
        path = Path(archive.extract(name, folder))
    spec = importlib.util.spec_from_file_location(MODULE, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[MODULE] = module
    package = importlib.import_module(MODULE.rpartition(".")[0])
    package._core = module  # type: ignore[attr-defined]
    print(f"{MODULE} from {path}, kernels {module.isas()}", flush=True)


def main(wheel: Path, kind: str, arguments: list[str]) -> int:
    """Exit status of the tests."""
    if LIBRARIES[kind][0] not in os.environ.get("LD_PRELOAD", ""):
        restart(kind)
    os.chdir(ROOT)
    with tempfile.TemporaryDirectory() as folder:
        load(wheel, Path(folder))
        # A report is written to the real standard error, which pytest must not hold back.
        return pytest.main(["--capture=sys", "-p", "no:cacheprovider", *arguments])


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]))
