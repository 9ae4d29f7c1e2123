"""What `ncagate segment` does: the worker's pipeline over files, without a server."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from imaging.errors import ImagingError
from imaging.limits import Limits
from imaging.roi import Roi
from imaging.sandbox import start_sandbox
from model_store.loaded import LoadedVersion, load_version
from model_store.registry import open_registry
from nca.engine import Engine, get_engine
from nca.errors import NcaError
from ncagate.settings import Settings
from ncagate.stems import stems
from ncagate.terminal import print_json, to_json
from ncagate.verdicts import print_verdicts
from worker.pipeline import Options, OutputNames, StageCallback, segment_scan
from worker.record import Origin, Record

RECORD_FIELDS = (
    "verdict", "reasons", "rule", "nqm", "predicted_dice", "dice_interval", "required_dice", "pairwise_dice",
    "volume_ml", "segments", "model", "version", "seed", "roi", "engine", "seconds", "warnings",
)  # fmt: skip
"""Fields of a record in the JSON file, beside `scan`."""
FILE_NOT_FOUND = "file_not_found"
FILE_ERROR = "file_error"
"""Codes for what the file system refuses; every other one is an ImagingError's or NcaError's own."""
STDOUT = Path("-")

console = Console(stderr=True)


@dataclass(frozen=True)
class Batch:
    """Several scans under one version and one set of options."""

    version: LoadedVersion
    engine: Engine
    options: Options
    limits: Limits
    out: Path

    @classmethod
    def open(
        cls,
        settings: Settings,
        *,
        model: str,
        version: str | None,
        members: int,
        seed: int,
        series_uid: str | None = None,
        roi: str | None = None,
        out: Path,
    ) -> Batch:
        """Load the version and the engine, make the output folder.

        Raises:
            ModelStoreError, NcaError: there is no such version or engine, or it is corrupt.
            RoiInvalidError: ``roi`` is no region of interest.
        """
        start_sandbox()
        region = None if roi is None else Roi.parse(roi)
        loaded = load_version(open_registry(settings), model, version)
        engine = get_engine(settings.engine, threads=settings.threads, memory_budget=settings.memory_budget)
        out.mkdir(parents=True, exist_ok=True)
        limits = Limits(
            unpacked_bytes=settings.unpacked_bytes_max,
            files=settings.files_max,
            voxels=settings.voxels_max,
            memory=settings.read_bytes_max,
            seconds=settings.read_seconds_max,
        )
        policy = loaded.manifest.calibration.policy(
            min_dice=settings.min_dice, alpha=settings.alpha, rule=settings.rule
        )
        return cls(loaded, engine, Options(policy, members, seed, series_uid, region), limits, out)

    def run(self, scans: Sequence[Path], *, shown: bool = True) -> list[dict[str, Any]]:
        """Segment every scan; one that cannot be read gives a record with its error, and the others are still done.

        ``shown``: print the verdicts.
        """
        records = []
        with _progress() as bar:
            for scan, name in zip(scans, stems(scans), strict=True):
                records.append(self._one(scan, name, bar=bar))
        if shown and any("verdict" in record for record in records):
            print_verdicts(Console(), [(Path(record["scan"]).name, record) for record in records])
        return records

    def _one(self, scan: Path, name: str, *, bar: Progress) -> dict[str, Any]:
        task = bar.add_task(scan.name, total=1.0, stage="")
        try:
            record = self.segment(
                scan, name, on_stage=lambda stage, done: bar.update(task, completed=done, stage=stage)
            )
        except (ImagingError, NcaError) as error:
            return _refused(scan, code=error.code, detail=str(error))
        except OSError as error:
            code = FILE_NOT_FOUND if isinstance(error, FileNotFoundError) else FILE_ERROR
            return _refused(scan, code=code, detail=error.strerror or str(error))
        finally:
            bar.remove_task(task)
        whole = record.to_json()
        return {"scan": str(scan)} | {field: whole[field] for field in RECORD_FIELDS}

    def segment(self, scan: Path, name: str, *, on_stage: StageCallback = lambda stage, done: None) -> Record:
        """Segment one scan into ``<name>_mask.nii.gz`` and the like; raises as `worker.pipeline.segment_scan`."""
        names = OutputNames(*(f"{name}_{file}" for file in astuple(OutputNames())))
        with (
            tempfile.TemporaryDirectory(prefix="ncagate-") as workdir,
            tempfile.TemporaryDirectory(prefix=".ncagate-", dir=self.out) as staged,
        ):
            outcome = segment_scan(
                [scan],
                self.version,
                engine=self.engine,
                options=self.options,
                origin=Origin(uuid4().hex, datetime.now(UTC)),
                limits=self.limits,
                out=Path(staged),
                workdir=Path(workdir),
                names=names,
                on_stage=on_stage,
            )
            for file in map(Path(staged).joinpath, astuple(names)):
                if file.exists():
                    file.replace(self.out / file.name)
        return outcome.record


def _refused(scan: Path, *, code: str, detail: str) -> dict[str, Any]:
    console.print(f"ncagate: {scan}: {detail} [{code}]", markup=False, highlight=False, soft_wrap=True)
    return {"scan": str(scan), "error": {"code": code, "detail": detail}}


def write_records(records: Sequence[dict[str, Any]], path: Path) -> None:
    """Write the records as one JSON array, to stdout where ``path`` is `-`."""
    if path == STDOUT:
        print_json(records)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(to_json(records, indent=2) + "\n", encoding="utf-8")


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[stage]}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
