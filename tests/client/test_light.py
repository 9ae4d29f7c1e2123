"""What `pip install ncagate` brings is enough for the client and its commands: nothing else can be imported here."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from ncagate.terminal import Exit

ROOT = Path(__file__).resolve().parents[2]
WITHOUT = """
import json, sys
from importlib.abc import MetaPathFinder
class Missing(MetaPathFinder):
    names = set(json.loads(sys.argv.pop(1)))
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
from ncagate.cli import main
main()
"""


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def closure(requirements: list[str]) -> set[str]:
    """Names of distributions that these bring."""
    found: set[str] = set()
    left = [Requirement(one) for one in requirements]
    while left:
        one = left.pop()
        name = canonical(one.name)
        if name not in found and (one.marker is None or one.marker.evaluate({"extra": ""})):
            found.add(name)
            left += map(Requirement, requires(name) or ())
    return found


@pytest.fixture(scope="module")
def missing() -> str:
    """Modules of installed distributions that the light install does not bring, as JSON."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    light = closure(project["dependencies"]) | {"ncagate"}
    modules = packages_distributions()
    return json.dumps([name for name, owners in modules.items() if not light & set(map(canonical, owners))])


def run(missing: str, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NCAGATE_")}
    command = [sys.executable, "-c", WITHOUT, missing, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, cwd=ROOT)


class TestLight:
    def test_nothing_heavy_comes_with_it(self, missing: str) -> None:
        heavy = {"torch", "numpy", "scipy", "nibabel", "pydicom", "fastapi", "sqlalchemy", "celery", "redis", "uvicorn"}
        assert heavy <= set(json.loads(missing))

    def test_a_command_of_the_client_works(self, missing: str) -> None:
        done = run(missing, "jobs", "--url", "http://127.0.0.1:9", "--patience", "0")
        assert (done.returncode, done.stderr.split()[-1]) == (Exit.UNAVAILABLE, "[no_answer]"), done.stderr

    @pytest.mark.parametrize("words", [["serve"], ["models", "list"], ["segment", "scan.nii", "--out", "out"]])
    def test_a_command_of_the_rest_says_what_is_missing(self, missing: str, words: list[str]) -> None:
        done = run(missing, *words)
        (line,) = done.stderr.splitlines()
        assert (done.returncode, line.split()[-1]) == (Exit.REFUSED, "[not_installed]")
        assert "pip install 'ncagate[serve]'" in line
