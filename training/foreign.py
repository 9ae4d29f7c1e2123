"""Scans that do not show the structure: another anatomy, another modality, noise, nothing. None may be accepted."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.table import Table

from imaging.errors import ImagingError
from imaging.grid import model_grid_shape
from imaging.limits import Limits
from imaging.read import read_scan
from imaging.request import Request
from imaging.volume import Volume
from model_store.contract import far_outside
from model_store.loaded import LoadedVersion
from model_store.manifest import InputContract
from nca.errors import ImageTooSmallError
from nca.gate import Policy, Reason, Verdict
from training.artefacts import Condition
from training.console import console
from training.outcomes import Subject, observe_scan

CROPS = 20
"""Boxes of the size that the model expects, cut from each scan at random: they fool the check of the field of view."""
FOREIGN = Condition("foreign")
FOREIGN_HEAD = ("foreign scan", "judged", "accepted", "reasons")
TOO_SMALL = ImageTooSmallError.code
"""The network cannot run on it: the service ends such a job `failed`."""


@dataclass(frozen=True)
class ForeignRow:
    """What became of one scan, whole or of its crops: how many, how many accepted, how often each reason was given."""

    scan: str
    judged: int
    accepted: int
    reasons: dict[str, int]

    @property
    def cells(self) -> tuple[str, str, str, str]:
        """The row of a table headed `FOREIGN_HEAD`."""
        reasons = ", ".join(f"{code} {count}" for code, count in self.reasons.items())
        return self.scan, str(self.judged), str(self.accepted), reasons


def foreign_table(rows: Sequence[ForeignRow]) -> Table:
    """One row a scan."""
    table = Table(*FOREIGN_HEAD, title="scans of other kinds", box=None)
    for one in rows:
        table.add_row(*one.cells)
    return table


def judge_foreign(version: LoadedVersion, folder: Path, policy: Policy) -> list[ForeignRow]:
    """The verdicts on every scan of a folder (each a file or a folder of DICOM files), whole, in crops; on noise.

    Crops and noise carry no modality, as a NIfTI file carries none.
    """
    rng, subject = np.random.default_rng(version.manifest.training.seed), Subject.of(version)
    rows = []
    for name, volume in _scans(folder, version.manifest.preprocessing.volumes):
        rows.append(_row(name, [volume], version, subject, policy))
        crops = [_crop(volume, version.manifest.contract, rng) for _ in range(CROPS)]
        rows.append(_row(f"{name}, crops", crops, version, subject, policy))
    shape = [round(sum(one) / 2) for one in version.manifest.contract.extent_mm]
    noise = [rng.normal(size=shape), rng.random(size=shape), np.zeros(shape), np.indices(shape).sum(0)]
    further = max(0, len(version.manifest.preprocessing.volumes) - 1)
    made = [Volume(one, np.eye(4), further=(one,) * further) for one in noise]
    return [*rows, _row("noise, a constant, a ramp", made, version, subject, policy)]


def _scans(folder: Path, volumes: Sequence[int]) -> Iterator[tuple[str, Volume]]:
    with tempfile.TemporaryDirectory(prefix="ncagate-") as workdir:
        for path in sorted(one for one in folder.iterdir() if not one.name.startswith(".")):
            try:
                yield path.name, read_scan(Request([path], Path(workdir), Limits(), volumes))
            except ImagingError as error:
                console.print(f"{path.name}: refused with {error.code}, so there is nothing to judge")


def _crop(volume: Volume, contract: InputContract, rng: np.random.Generator) -> Volume:
    """A random box of about the middle of the expected field of view, as far as the scan reaches."""
    middle = [sum(one) / 2 for one in contract.extent_mm]
    size = [max(1, min(n, round(mm / s))) for n, mm, s in zip(volume.array.shape, middle, volume.spacing, strict=True)]
    start = [int(rng.integers(0, n - m + 1)) for n, m in zip(volume.array.shape, size, strict=True)]
    x, y, z = (slice(o, o + n) for o, n in zip(start, size, strict=True))
    first, *further = (one[x, y, z] for one in volume.channels)
    return replace(volume, array=first, further=tuple(further), modality=None)


def _row(scan: str, volumes: list[Volume], version: LoadedVersion, subject: Subject, policy: Policy) -> ForeignRow:
    verdicts = [one for volume in volumes if (one := _verdict(volume, version, subject, policy)) is not None]
    reasons = Counter(code for _, codes in verdicts for code in codes)
    reasons[TOO_SMALL] = len(volumes) - len(verdicts)
    accepted = sum(verdict == "accept" for verdict, _ in verdicts)
    return ForeignRow(scan, len(volumes), accepted, {code: count for code, count in reasons.most_common() if count})


def _verdict(
    volume: Volume, version: LoadedVersion, subject: Subject, policy: Policy
) -> tuple[Verdict, tuple[str, ...]] | None:
    """Of the whole scan, with the codes of its reasons; None where it is too small for the network to run."""
    manifest = version.manifest
    grid = model_grid_shape(volume, manifest.preprocessing.spacing_mm)
    if far_outside(manifest.contract, manifest.preprocessing, grid=grid):
        return "flag", ("not_segmented",)
    nothing = np.zeros((len(manifest.segments), *volume.array.shape), dtype=np.bool_)
    outcomes = observe_scan(volume, nothing, subject, name="", condition=FOREIGN)
    final = [one for one in outcomes if one.observed.members == subject.members]
    if not final:
        return None
    judged = [
        gate.judge(one.observed, policy, violations=[Reason(code, "") for code in one.breaches])
        for one, gate in zip(final, version.gates, strict=True)
    ]
    codes = dict.fromkeys(reason.code for one in judged for reason in one.reasons)
    return ("flag" if any(one.verdict == "flag" for one in judged) else "accept"), tuple(codes)
