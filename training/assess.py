"""A published version and somebody's labelled folder: what `ncagate evaluate` and `ncagate calibrate` do."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from model_store.calibration import scan_numbers
from model_store.loaded import LoadedVersion, on_native_grid, prepare
from model_store.manifest import Manifest
from model_store.registry import Registry
from nca.engine import get_engine
from nca.ensemble import predict
from nca.gate import Policy
from training.artefacts import CLEAN, PAPER, Condition, degrade
from training.calibrate import calibrate, calibrator
from training.config import CalibrationSection, TrainingConfig
from training.console import console, detections, progress, qualities_table
from training.data import Case, load_cases, parts
from training.errors import NoTrainingDataError
from training.evaluate import Judged, cross_judged, detection_table, judge_all
from training.foreign import ForeignRow, foreign_table, judge_foreign
from training.measures import Figure, Scored, measure
from training.outcomes import SEED, Outcome, Subject, condition_rng, observe, write_outcomes
from training.pictures import ShownScan, draw_scans
from training.publish import version_name
from training.reference import clean_reference
from training.report import write_report

CONTRACT = {"the whole gate": True, "without the input check": False}
"""The gate with and without the input check before the network: the difference is what the check adds."""
SITE_PARTS = 5
"""Parts of a site's scans: each is judged by a gate that was calibrated on the others."""


@dataclass(frozen=True)
class Assessment:
    """All figures of a version on a folder.

    Attributes:
        detection: title of `CONTRACT` -> structure -> group of conditions -> `training.evaluate.Detection`.
        quality: structure -> score -> measure.
    """

    judged: Sequence[Judged]
    detection: dict[str, dict[str, Any]]
    quality: dict[str, dict[str, dict[str, Figure]]]
    foreign: Sequence[ForeignRow] = ()


def evaluate(
    version: LoadedVersion,
    *,
    data: Path,
    report: Path,
    policy: Policy,
    each_severity: bool = False,
    foreign: Path | None = None,
) -> Assessment:
    """Judge every unseen scan of a folder clean and degraded; write CSV, JSON and an HTML report into ``report``.

    ``foreign`` is a folder of scans that do not show the structure: whatever is accepted there is an error.

    Raises:
        NoTrainingDataError: the folder holds no labelled scan that the version has not seen.
        ImagingError: a file cannot be read.
    """
    cases, manifest = unseen_cases(version, data, calibration=True), version.manifest
    report.mkdir(parents=True, exist_ok=True)
    with progress("evaluation", len(cases)) as advance:
        seed = manifest.training.seed
        outcomes = observe(cases, Subject.of(version), seed=seed, each_severity=each_severity, on_case=advance)
    assessment = assess(version, outcomes, policy)
    if foreign is not None:
        rows = judge_foreign(version, foreign, policy)
        assessment = replace(assessment, foreign=rows)
    write_outcomes([one.outcome for one in assessment.judged], report / "outcomes.csv")
    (report / "evaluation.json").write_text(
        json.dumps(_figures(version, policy, assessment), indent=2) + "\n", encoding="utf-8"
    )
    picture = draw_scans(_shown(version, cases, assessment))
    page = write_report(
        report,
        version=version,
        policy=policy,
        judged=assessment.judged,
        detection=assessment.detection,
        quality=assessment.quality,
        foreign=assessment.foreign,
        scans=picture,
    )
    for title, structures in assessment.detection.items():
        for name, groups in structures.items():
            console.print(detections(f"{name}, {title}", groups))
    for name, scores in assessment.quality.items():
        console.print(qualities_table(name, scores))
    if assessment.foreign:
        console.print(foreign_table(assessment.foreign))
    console.print(f"the report is {page}")
    return assessment


def recalibrate(version: LoadedVersion, *, data: Path, store: Path, name: str) -> Manifest:
    """Publish the version's weights with a gate calibrated on a folder's labelled scans, which ``name`` describes.

    Raises:
        NoTrainingDataError: the folder holds no labelled scan that the weights were not trained on.
        UncalibratableError: there are too few scans, or Dice does not fall with NQM on them.
        ModelStoreError: the version could not be published.
    """
    cases, manifest = unseen_cases(version, data, calibration=False), version.manifest
    with progress("calibration", len(cases)) as advance:
        outcomes = observe(cases, Subject.of(version), seed=manifest.training.seed, on_case=advance)
    known, patient = manifest.calibration, manifest.training.config.get("patient", "")
    section = CalibrationSection(members=known.members, min_dice=known.min_dice, alpha=known.alpha)
    calibrating = calibrate(outcomes, manifest.contract, section=section, data=name, patient=patient)
    halves = parts(cases, SITE_PARTS, seed=manifest.training.seed, patient=patient)
    split = [{case.name for case in part} for part in halves]
    each = [[one for one in outcomes if one.scan in part] for part in split]
    judged = cross_judged(
        each, calibrator(manifest.contract, section, patient=patient), Policy(known.min_dice, known.alpha)
    )
    figures = detection_table(judged, structures=manifest.structures, min_dice=known.min_dice)
    now = datetime.now(UTC).replace(microsecond=0)
    published = manifest.model_copy(
        update={
            "version": version_name(now),
            "created": now,
            "calibration": calibrating.calibration,
            "metrics": manifest.metrics | {"site": figures},
            "low_precision": None,  # it was proven for other verdicts
            "files": {},
        }
    )
    reference = clean_reference(outcomes, cases, manifest=published)
    published = Registry(store).publish(published, version.network.weights, calibrating.rows, reference=reference)
    for structure, one in figures.items():
        console.print(detections(f"{structure}, each scan judged by a calibration without it", one))
    console.print(f"published {published.name} {published.version} to {store}")
    return published


def unseen_cases(version: LoadedVersion, data: Path, *, calibration: bool) -> list[Case]:
    """The labelled scans of a folder that the version's weights were not trained on, by file name.

    With ``calibration`` those that its verdict was calibrated on are left out as well.

    Raises:
        NoTrainingDataError: none is left.
    """
    record = version.manifest.training
    cases = load_cases(data, config=TrainingConfig.model_validate(record.config))
    seen = {*record.training_scans, *(version.manifest.calibration.scans if calibration else ())}
    left = [case for case in cases if case.name not in seen]
    if len(left) < len(cases):
        console.print(f"{len(cases) - len(left)} of {len(cases)} scans are left out: the version has seen them")
    if not left:
        raise NoTrainingDataError(f"the version has seen every scan in {data}")
    return left


def assess(version: LoadedVersion, outcomes: Sequence[Outcome], policy: Policy) -> Assessment:
    """All figures of a version from its outcomes."""
    names = version.manifest.structures
    each = {title: judge_all(outcomes, version.gates, policy, contract=on) for title, on in CONTRACT.items()}
    judged = next(iter(each.values()))
    return Assessment(
        judged,
        {title: detection_table(one, structures=names, min_dice=policy.min_dice) for title, one in each.items()},
        {
            name: score_qualities([one for one in judged if one.outcome.structure == index], min_dice=policy.min_dice)
            for index, name in enumerate(names)
        },
    )


def score_qualities(judged: Sequence[Judged], *, min_dice: float) -> dict[str, dict[str, Figure]]:
    """Measures of every score on one structure's outcomes; masks without evidence are left out (they are flagged)."""
    known = [(one, one.outcome.observed.evidence) for one in judged]
    pairs = [(one, seen) for one, seen in known if seen is not None]
    scan = scan_numbers([one.outcome.scan for one, _ in pairs])
    dices = np.array([one.outcome.dice for one, _ in pairs])
    scores = {
        "NQM": [-seen.nqm for _, seen in pairs],
        "NQM of masks": [-seen.mask_nqm for _, seen in pairs],
        "pairwise Dice": [1 - seen.disagreement for _, seen in pairs],
        "entropy": [-seen.entropy for _, seen in pairs],
    }
    scored = {name: Scored(scan, dices, np.array(values)) for name, values in scores.items()}
    predicted = np.array([one.judgement.predicted_dice or 0.0 for one, _ in pairs])
    scored["regression"] = Scored(scan, dices, predicted, predicted)
    return {name: measure(one, min_dice=min_dice) for name, one in scored.items()}


def _figures(version: LoadedVersion, policy: Policy, assessment: Assessment) -> dict[str, Any]:
    return {
        "model": version.manifest.name,
        "version": version.manifest.version,
        "policy": asdict(policy),
        "scans": len({one.outcome.scan for one in assessment.judged}),
        "detection": assessment.detection,
        "foreign": [asdict(one) for one in assessment.foreign],
        "quality": {
            structure: {score: {name: asdict(one) for name, one in each.items()} for score, each in scores.items()}
            for structure, scores in assessment.quality.items()
        },
    }


def _shown(version: LoadedVersion, cases: Sequence[Case], assessment: Assessment) -> list[ShownScan]:
    """The best, the middle and the worst clean scan, and the middle one under the paper's artefacts."""
    last = len(version.manifest.structures) - 1
    clean = [
        one.outcome
        for one in assessment.judged
        if one.outcome.condition.kind == CLEAN and one.outcome.structure == last
    ]
    ranked = sorted(clean, key=lambda one: -one.dice)
    middle = ranked[len(ranked) // 2].scan
    chosen = [(one.scan, Condition(CLEAN)) for one in (ranked[0], ranked[len(ranked) // 2], ranked[-1])]
    chosen += [(middle, one) for one in PAPER]
    by_name = {case.name: case for case in cases}
    verdicts = {
        (one.outcome.scan, one.outcome.condition): one for one in assessment.judged if one.outcome.structure == last
    }
    return [_shown_scan(version, by_name[scan], one, verdicts.get((scan, one))) for scan, one in chosen]


def _shown_scan(version: LoadedVersion, case: Case, condition: Condition, judged: Judged | None) -> ShownScan:
    manifest = version.manifest
    rng = condition_rng(case.name, condition, seed=manifest.training.seed)
    volume, truth = degrade(case.volume, case.truth, condition, rng=rng)
    prepared = prepare(volume, manifest.preprocessing)
    members = manifest.calibration.members
    results = on_native_grid(
        prepared, predict(get_engine(), version.network, prepared.image, seed=SEED, members=members)
    )
    title = str(condition)
    if judged is not None:
        predicted = judged.judgement.predicted_dice
        said = "" if predicted is None else f", predicted {predicted:.2f}"
        title += f": Dice {judged.outcome.dice:.2f}{said}, {judged.judgement.verdict}"
    return ShownScan(title, volume.array, np.asarray(truth.any(axis=0)), results[-1].mask, results[-1].deviation)
