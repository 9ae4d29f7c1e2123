"""Stacks for the tests, and the table at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import pytest

from imaging.nifti import write_nifti
from model_store.manifest import Manifest
from model_store.registry import Registry
from tests.chaos.figures import Figures
from tests.chaos.rig import Layout, Rig
from tests.chaos.stage import Stage

FIGURES = pytest.StashKey[Figures]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[FIGURES] = Figures()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    figures = config.stash[FIGURES]
    if figures.faults:
        terminalreporter.section("chaos")
        for line in figures.lines():
            terminalreporter.line(line)


@pytest.fixture(scope="session")
def figures(pytestconfig: pytest.Config) -> Figures:
    return pytestconfig.stash[FIGURES]


@pytest.fixture(scope="session")
def scan(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A made-up scan of a few kB."""
    path = tmp_path_factory.mktemp("scan") / "scan.nii.gz"
    array = np.random.default_rng(0).normal(200, 10, (14, 12, 10)).astype(np.float32)
    array[4:10, 3:9, 3:7] += 100
    write_nifti(path, array, np.eye(4))
    return path.read_bytes()


@pytest.fixture(scope="session")
def start(
    tmp_path_factory: pytest.TempPathFactory, publish_tiny: Callable[..., Manifest], scan: bytes, figures: Figures
) -> Callable[..., AbstractContextManager[Rig]]:
    """Starts a stack of its own, on a fresh data folder or on one that is there."""

    @contextmanager
    def started(layout: Layout, *, data: Path | None = None) -> Iterator[Rig]:
        folder = tmp_path_factory.mktemp("chaos")
        data = data or folder / "data"
        publish_tiny(data / "models")
        publish_tiny(data / "models", version="0.9.0", seed=9)
        for alias, version in (("production", "1.0.0"), ("candidate", "0.9.0")):
            Registry(data / "models", shipped=None).set_alias("tiny", alias, version)
        rig = Rig(folder, data, layout, scan=scan, figures=figures)
        try:
            yield rig
        finally:
            rig.close()

    return started


@pytest.fixture(scope="session")
def stage(
    start: Callable[..., AbstractContextManager[Rig]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """The stacks that are kept."""
    one = Stage(start, tmp_path_factory.mktemp)
    yield one
    one.close()


@pytest.fixture
def rig(stage: Stage) -> Iterator[Rig]:
    """The one on SQLite."""
    with stage.rig() as running:
        yield running
