"""What an ensemble makes of labelled scans under every condition: one row per structure, kept as a CSV file."""

from __future__ import annotations

import copy
import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imaging.volume import Volume
from model_store.contract import violations
from model_store.loaded import LoadedVersion, on_native_grid, prepare
from model_store.manifest import InputContract, Preprocessing
from nca.engine import Engine, get_engine
from nca.ensemble import Ensemble
from nca.errors import ImageTooSmallError
from nca.evidence import Evidence
from nca.gate import Observed
from nca.network import Network
from nca.quality import dice
from training.artefacts import CLEAN, KINDS, PAPER, SEVERITIES, Condition, degrade
from training.data import Case

SEED = 0
"""The service's default seed: a scan is judged here as it would be there."""


@dataclass(frozen=True)
class Outcome:
    """One structure of one scan under one condition, as an ensemble sees it.

    Attributes:
        scan: file name.
        structure: number of the segment; of several, their union comes last.
        dice: of the thresholded mask on the scan's own grid against the label.
        breaches: codes of the input contract's breaches.
    """

    scan: str
    condition: Condition
    structure: int
    dice: float
    breaches: tuple[str, ...]
    observed: Observed


@dataclass(frozen=True)
class Subject:
    """What is judged: a network as the service would run it."""

    network: Network
    preprocessing: Preprocessing
    contract: InputContract
    engine: Engine
    members: int

    @classmethod
    def of(cls, version: LoadedVersion) -> Subject:
        """A published version on this machine's fastest engine, with the ensemble it was calibrated for."""
        manifest = version.manifest
        members = manifest.calibration.members
        return cls(version.network, manifest.preprocessing, manifest.contract, get_engine(), members)


def conditions(name: str, *, seed: int, each_severity: bool = False) -> list[Condition]:
    """Clean, the paper's three, and every kind: at one severity drawn by (seed, scan's name), or at all five."""
    rng = np.random.default_rng([seed, *name.encode()])
    if each_severity:
        return [Condition(CLEAN), *(Condition(kind, severity) for kind in KINDS for severity in SEVERITIES)]
    drawn = (Condition(kind, int(rng.integers(1, len(SEVERITIES) + 1))) for kind in KINDS)
    return list(dict.fromkeys([Condition(CLEAN), *PAPER, *drawn]))


def observe(
    cases: Sequence[Case],
    subject: Subject,
    *,
    seed: int,
    each_severity: bool = False,
    on_case: Callable[[], None] = lambda: None,
) -> list[Outcome]:
    """Outcomes of every case under its `conditions`; the random draws depend on ``seed`` and the scan's name alone."""
    outcomes: list[Outcome] = []
    for case in cases:
        for condition in conditions(case.name, seed=seed, each_severity=each_severity):
            rng = condition_rng(case.name, condition, seed=seed)
            volume, truth = degrade(case.volume, case.truth, condition, rng=rng)
            outcomes += observe_scan(volume, truth, subject, name=case.name, condition=condition)
        on_case()
    return outcomes


def condition_rng(name: str, condition: Condition, *, seed: int) -> np.random.Generator:
    """What draws a scan's damage: it depends on the scan's name, the condition and the seed alone."""
    return np.random.default_rng([seed, *f"{name} {condition}".encode()])


def observe_scan(
    volume: Volume, truth: NDArray[np.bool_], subject: Subject, *, name: str, condition: Condition
) -> list[Outcome]:
    """Outcomes of the ensembles of 1, 2, ... members on one labelled scan; none where it is too small for the network.

    ``truth``: (segments, x, y, z) on the scan's own grid.
    """
    prepared = prepare(volume, subject.preprocessing)
    scan = prepared.scan
    breaches = violations(
        subject.contract, modality=volume.modality, spacing=scan.spacing, extent=scan.extent, image=prepared.image
    )
    codes = tuple(reason.code for reason in breaches)
    truths = [*truth] if len(truth) == 1 else [*truth, truth.any(axis=0)]
    try:
        return [
            Outcome(name, condition, structure, dice(result.mask, truths[structure]), codes, result.observed)
            for ensemble in _growing(subject, prepared.image)
            for structure, result in enumerate(on_native_grid(prepared, ensemble.predictions()))
        ]
    except ImageTooSmallError:
        return []


def _growing(subject: Subject, image: NDArray[np.float32]) -> Iterator[Ensemble]:
    """The ensemble after each member."""
    ensemble = Ensemble()
    for probability in subject.engine.run(subject.network, image, seed=SEED, members=range(subject.members)):
        ensemble.add(probability)
        yield copy.deepcopy(ensemble)


EVIDENCE = tuple(one.name for one in fields(Evidence))
_COLUMNS = (
    "scan",
    "kind",
    "severity",
    "structure",
    "dice",
    "breaches",
    "observed_nqm",
    "finite",
    "volume_ml",
    "members",
)


def write_outcomes(outcomes: Sequence[Outcome], path: Path) -> None:
    """A CSV file: one row an outcome, one column a figure; empty where a figure is undefined."""
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow([*_COLUMNS, *EVIDENCE])
        for one in outcomes:
            condition, seen = one.condition, one.observed
            evidence = asdict(seen.evidence) if seen.evidence else dict.fromkeys(EVIDENCE)
            rows.writerow(
                [
                    one.scan, condition.kind, condition.severity, one.structure, one.dice, " ".join(one.breaches),
                    seen.nqm, int(seen.finite), seen.volume_ml, seen.members, *evidence.values(),
                ]
            )  # fmt: skip


def read_outcomes(path: Path) -> list[Outcome]:
    """What `write_outcomes` wrote."""
    with path.open(newline="", encoding="utf-8") as file:
        return [_outcome(row) for row in csv.DictReader(file)]


def _outcome(row: dict[str, Any]) -> Outcome:
    known = row[EVIDENCE[0]] != ""
    observed = Observed(
        nqm=float(row["observed_nqm"]) if row["observed_nqm"] else None,
        finite=row["finite"] == "1",
        volume_ml=float(row["volume_ml"]),
        members=int(row["members"]),
        evidence=Evidence(**{name: float(row[name]) for name in EVIDENCE}) if known else None,
    )
    condition = Condition(row["kind"], int(row["severity"]))
    breaches = tuple(row["breaches"].split())
    return Outcome(row["scan"], condition, int(row["structure"]), float(row["dice"]), breaches, observed)
