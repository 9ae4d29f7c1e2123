"""Wheels built as a user's pip builds them, and environments that they are installed in."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD_STAGE = (ROOT / "docker" / "Dockerfile").read_text().split("\nFROM ")[1]
COPIED = " ".join(re.findall(r"^COPY (.+) \S+$", BUILD_STAGE, re.MULTILINE)).split()


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the image's build stage has, and nothing else: the wheel must not need more."""
    folder = tmp_path_factory.mktemp("source")
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture(scope="session")
def pip_wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path | str]:
    """Builds a wheel, in isolation: pip fetches what pyproject.toml asks for. Its path, or what pip said of why not."""

    def build(**environment: str) -> Path | str:
        folder = tmp_path_factory.mktemp("wheel")
        command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", str(folder), str(source)]
        result = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)
        return next(folder.glob("*.whl"), result.stdout + result.stderr)

    return build


@pytest.fixture(scope="session")
def wheel(pip_wheel: Callable[..., Path | str]) -> Path:
    """The wheel as this machine's compiler makes it; without one the test is skipped, and fails where CI=true."""
    if not any(shutil.which(name) for name in ("c++", "g++", "clang++")):
        reason = "there is no C++ compiler on this machine"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    built = pip_wheel(NCAGATE_REQUIRE_NATIVE="1")
    assert isinstance(built, Path), built
    return built


@pytest.fixture(scope="session")
def pure_wheel(pip_wheel: Callable[..., Path | str]) -> Path:
    """The wheel as a machine makes it whose compiler does not run."""
    built = pip_wheel(CXX=shutil.which("false") or "false", NCAGATE_REQUIRE_NATIVE="")
    assert isinstance(built, Path), built
    return built


@pytest.fixture
def install(tmp_path: Path) -> Callable[[Path], Path]:
    """Installs a wheel into a fresh environment that has the dependencies, but not the project; gives its ``bin``."""

    def into_fresh(wheel: Path) -> Path:
        venv.create(tmp_path / "venv", symlinks=True)
        binaries = tmp_path / "venv" / "bin"
        pip = [sys.executable, "-m", "pip", "--python", str(binaries / "python")]
        subprocess.run([*pip, "install", "--quiet", "--no-deps", "--no-index", str(wheel)], check=True)
        # A folder named in a .pth file is searched after the environment's own, and its own .pth files do not count:
        # so neither the project installed there for development nor its import hook gets in.
        (packages,) = (tmp_path / "venv").glob("lib/python*/site-packages")
        (packages / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"])
        return binaries

    return into_fresh
