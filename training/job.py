"""The training job: cross-validate, calibrate on what was held out, publish. What `ncagate train` runs.

Every fold's network is judged on scans it never saw, so that together all scans are. The first fold's network is
published. Its verdict is calibrated on the outcomes of the other folds, so that the first fold's scans were seen
neither by the weights nor by their calibration: they are its validation part. That a calibration holds for a network
and scans that it was not made with is measured the same way on every fold (`cross_validation` in the manifest).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from model_store.manifest import LowPrecision, Manifest
from model_store.registry import Registry
from nca.gate import Gate, Policy
from training.agreement import low_precision_agreement
from training.calibrate import Calibrating, calibrate, calibrator
from training.config import TrainingConfig, load_config
from training.console import console, detections, progress
from training.crossval import FoldResult, run_fold
from training.data import folds, load_cases
from training.evaluate import cross_judged, detection_table, judge_all
from training.pictures import draw_calibration
from training.publish import build_manifest
from training.reference import clean_reference
from training.watch import NOBODY_WATCHES, Watch

CROSS_VALIDATION, VALIDATION = "cross_validation", "validation"


def run(
    *,
    data: Path,
    config: Path,
    store: Path,
    resume: bool = False,
    run: Path = Path("runs/latest"),
    candidate: bool = False,
    watch: Watch = NOBODY_WATCHES,
) -> Manifest:
    """Train on ``data`` as the TOML file ``config`` says and publish a version to ``store``.

    ``run`` is the folder of checkpoints, metrics, outcomes and pictures; with ``resume`` its run is continued.
    A ``candidate`` is not what is meant where nobody says a version. ``watch`` is told how it goes.

    Raises:
        TrainingError: the configuration, the data or the run folder cannot be used, or training diverged.
        ModelStoreError: the version could not be published.
    """
    settings = load_config(config)
    cases = load_cases(data, config=settings)
    console.print(f"{len(cases)} scans in {settings.folds} folds (seed {settings.seed})")
    parts = folds(cases, config=settings)
    results = [run_fold(one, config=settings, run=run, resume=resume, watch=watch) for one in parts]
    manifest, calibrating = describe(results, config=settings)
    reference = clean_reference(
        [one for result in results[1:] for one in result.outcomes],
        [case for result in results[1:] for case in result.fold.held_out],
        manifest=manifest,
    )
    weights = results[0].network.weights
    manifest = Registry(store).publish(manifest, weights, calibrating.rows, reference=reference, candidate=candidate)
    _draw(results, calibrating, config=settings, run=run)
    _print_summary(manifest, store)
    _print_uncertified(calibrating.gates, settings)
    return manifest


def describe(results: Sequence[FoldResult], *, config: TrainingConfig) -> tuple[Manifest, Calibrating]:
    """The manifest of the first fold's network, calibrated on the others' outcomes."""
    first, *others = results
    section = config.calibration
    outcomes = [one for result in others for one in result.outcomes]
    scans = f"the {sum(len(one.fold.held_out) for one in others)} scans held out from the other folds' networks"
    calibrating = calibrate(outcomes, first.contract, section=section, data=scans, patient=config.patient)
    return (
        build_manifest(
            results,
            config=config,
            calibration=calibrating.calibration,
            metrics=_metrics(results, calibrating, config=config),
            low_precision=_agreement(first, calibrating.gates, config=config),
        ),
        calibrating,
    )


def _metrics(results: Sequence[FoldResult], calibrating: Calibrating, *, config: TrainingConfig) -> dict[str, Any]:
    """Figures of every fold judged by the other folds' calibration, and of the first judged by what is published."""
    section = config.calibration
    policy = Policy(section.min_dice, section.alpha)
    recalibrated = calibrator(calibrating.contract, section, patient=config.patient)
    judged = {
        CROSS_VALIDATION: cross_judged([one.outcomes for one in results], recalibrated, policy),
        VALIDATION: judge_all(results[0].outcomes, calibrating.gates, policy),
    }
    return {
        name: detection_table(part, structures=config.structures, min_dice=section.min_dice)
        for name, part in judged.items()
    }


def _agreement(first: FoldResult, gates: Sequence[Gate], *, config: TrainingConfig) -> LowPrecision | None:
    with progress("low precision", len(first.fold.held_out)) as advance:
        return low_precision_agreement(
            first.network,
            first.fold.held_out,
            gates,
            preprocessing=config.preprocessing(),
            policy=Policy(config.calibration.min_dice, config.calibration.alpha),
            on_case=advance,
        )


def _draw(results: Sequence[FoldResult], calibrating: Calibrating, *, config: TrainingConfig, run: Path) -> None:
    members = config.calibration.members
    calibration, validation = (
        [one for result in part for one in result.outcomes if one.observed.members == members]
        for part in (results[1:], results[:1])
    )
    line = calibrating.gates[-1].lines[-1]
    last = len(calibrating.gates) - 1
    draw_calibration(
        [one for one in calibration if one.structure == last],
        [one for one in validation if one.structure == last],
        line=line,
        min_dice=config.calibration.min_dice,
        picture=run / "calibration.png",
    )


def _print_uncertified(gates: Sequence[Gate], config: TrainingConfig) -> None:
    """Say so where every mask would be flagged, before somebody serves the version and wonders."""
    policy = Policy(config.calibration.min_dice, config.calibration.alpha)
    for name, gate in zip(config.structures, gates, strict=True):
        if gate.required_dice(policy) is None:
            console.print(
                f"[bold]{name}: these scans show for no threshold that failures stay below {policy.alpha:.0%} of the "
                f"accepted: every mask is flagged.[/] More patients, a higher alpha or a lower min_dice mend that."
            )


def _print_summary(manifest: Manifest, store: Path) -> None:
    for part, structures in manifest.metrics.items():
        for name, figures in structures.items():
            console.print(detections(f"{part.replace('_', '-')}, {name}", figures))
    for name, calibration in zip(manifest.structures, manifest.calibration.structures, strict=True):
        line = calibration.lines[-1]
        console.print(
            f"{name}: Dice = {line.intercept:.3f} {line.slope:+.3f} NQM (r {line.pearson:.2f}, "
            f"residual {line.residual:.3f}, {line.points} outcomes)"
        )
    if manifest.low_precision is not None:
        low = manifest.low_precision
        console.print(
            f"{low.engine}: masks agree with float32 to Dice {low.dice_mean:.5f} (lowest {low.dice_min:.5f}), "
            f"{low.verdicts_changed} of {low.scans} verdicts changed: {'may' if low.proven else 'may not'} be used"
        )
    console.print(f"published {manifest.name} {manifest.version} to {store}")
