"""A real Orthanc with the shipped recipe, and a collection with a database, files and a clock of its own."""

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from jobs.database import open_database, upgrade
from jobs.models import Series
from jobs.repository import JobRepository
from jobs.state import SeriesState
from model_store.manifest import Manifest
from model_store.registry import Registry
from ncagate.orthanc import Orthanc, OrthancError, program, running_orthanc
from ncagate.settings import Settings
from pacs.collect import Collection, Receipt, open_collection
from pacs.config import PacsConfig, load_pacs
from pacs.series import SeriesRepository

Start = Callable[..., AbstractContextManager[Orthanc]]
QUIET_S = 10.0
ROUTES = """
quiet_s = 10

[[route]]
name = "heads"
modality = "MR"
model = "tiny"
destinations = ["archive"]

[[route]]
name = "nowhere"
modality = "CT"
model = "missing"

[[destination]]
name = "archive"
kind = "stow"
url = "http://127.0.0.1:1/dicom-web"
"""


@pytest.fixture
def orthanc(tmp_path: Path) -> Start:
    """Starts Orthanc; keyword arguments are environment variables of the recipe (docker/orthanc/orthanc.json).

    Without Orthanc and DCMTK the test is skipped, and fails where CI=true.
    """
    needed("Orthanc", "storescu", "storescp")

    def start(**environment: str) -> AbstractContextManager[Orthanc]:
        return running_orthanc(tmp_path, **environment)

    return start


@pytest.fixture
def dcmtk() -> Callable[[str], str]:
    """Finds one of DCMTK's programs; without it the test is skipped, and fails where CI=true."""

    def find(name: str) -> str:
        needed(name)
        return program(name)

    return find


def needed(*names: str) -> None:
    try:
        for name in names:
            program(name)
    except OrthancError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error))
        pytest.skip(str(error))


class Clock:
    """Time that moves when the test says so."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class Desk:
    """A collection, and a way to send to it."""

    def __init__(self, folder: Path, config: PacsConfig) -> None:
        self.clock = Clock()
        self.settings = Settings(data=folder)
        upgrade(self.settings.database)
        self.jobs = JobRepository(open_database(self.settings.database), clock=self.clock)
        self.registry = Registry(self.settings.models)
        self.collection = self.another(config)
        self.blobs = self.collection.blobs
        self.sent: list[str] = []

    def another(self, config: PacsConfig | None = None) -> Collection:
        """As another process has it: the same database and files, with an engine of its own."""
        engine = open_database(self.settings.database)
        made = open_collection(
            self.settings, config=config or self.collection.config, jobs=self.jobs, registry=self.registry
        )
        return replace(made, series=SeriesRepository(engine, clock=self.clock))

    def receive(self, files: Sequence[Path], *, sender: str = "PACS") -> list[Receipt]:
        """Send copies of these files, as a request or an association does."""
        with self.blobs.staging() as folder:
            staged = [Path(shutil.copy(one, folder / uuid4().hex)) for one in files]
            return self.collection.receive(staged, sender=sender)

    def complete(self) -> list[str]:
        """Let the quiet period pass and look at what is due; the jobs that were sent to the broker by that."""
        self.clock.now += QUIET_S + 1.0
        before = len(self.sent)
        self.collection.submit_complete(self.sent.append)
        return self.sent[before:]

    @property
    def rows(self) -> list[Series]:
        return list(self.collection.series.list())

    @property
    def row(self) -> Series:
        (row,) = self.rows
        return row

    @property
    def state(self) -> SeriesState:
        return self.row.state

    def kept(self) -> list[Path]:
        """The instances that lie here, of any series."""
        return sorted(one for one in (self.settings.blobs / "series").glob("*/*"))

    def jobs_made(self) -> int:
        return len(self.jobs.list())

    def scratch(self) -> list[Path]:
        return list((self.settings.blobs / "tmp").iterdir())


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate of this machine, which is its own authority, and its key, made by openssl."""
    if (openssl := shutil.which("openssl")) is None:
        if os.environ.get("CI") == "true":
            pytest.fail("openssl is missing")
        pytest.skip("openssl is missing")
    folder = tmp_path_factory.mktemp("tls")
    made, key = folder / "certificate.pem", folder / "key.pem"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    kind = ["-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    subprocess.run(
        [openssl, "req", *kind, *names, "-out", str(made), "-keyout", str(key)], check=True, capture_output=True
    )
    return made, key


@pytest.fixture
def config(tmp_path: Path) -> PacsConfig:
    path = tmp_path / "pacs.toml"
    path.write_text(ROUTES)
    return load_pacs(path)


@pytest.fixture
def desk(tmp_path: Path, config: PacsConfig, publish_tiny: Callable[..., Manifest]) -> Desk:
    desk = Desk(tmp_path / "data", config)
    publish_tiny(desk.settings.models)
    return desk
