"""The training job: train, collect statistics, calibrate, evaluate, publish. What `ncagate train` runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from model_store.manifest import Manifest
from model_store.registry import Registry
from nca.engine import get_engine
from nca.engine.torch_engine import to_network
from nca.network import Network
from nca.quality import Line
from training import checkpoint
from training.agreement import low_precision_agreement
from training.artefacts import ARTEFACTS
from training.calibrate import calibration_outcomes, fit_lines
from training.checkpoint import TrainingState
from training.config import TrainingConfig, load_config
from training.contract import derive_contract
from training.curves import draw_calibration, draw_curves
from training.data import Case, load_cases, split
from training.errors import CheckpointMismatchError
from training.evaluate import Gate, detection_table, validation_outcomes
from training.judged import Judge, Outcome, scan_judge
from training.loop import METRICS_FILE, Report, new_state, train
from training.publish import build_manifest, preprocessing
from training.statistics import collect

SMOOTHING = 0.98
"""Weight of the past in the loss and Dice that the progress bar shows."""
LINE_EVERY = 100
"""Iterations between two lines of the log where the output is not a terminal."""

console = Console()
Advance = Callable[..., None]


def run(*, data: Path, config: Path, store: Path, resume: bool = False, run: Path = Path("runs/latest")) -> Manifest:
    """Train on ``data`` as the TOML file ``config`` says and publish a version to ``store``.

    ``run`` is the folder of checkpoints, metrics.csv and pictures; with ``resume`` its run is continued.

    Raises:
        TrainingError: the configuration, the data or the run folder cannot be used, or training diverged.
        ModelStoreError: the version could not be published.
    """
    settings = load_config(config)
    parts = training, validation = split(load_cases(data, config=settings), config=settings)
    console.print(f"{len(training)} scans to train on, {len(validation)} to validate on (seed {settings.seed})")
    state = _open_run(settings, run, resume=resume)
    with _progress("training", settings.optimisation.iterations, done=state.iteration) as advance:
        train(state, training, config=settings, run=run, on_report=_shown(advance))
    draw_curves(run / METRICS_FILE, run / "curves.png")
    with _progress("statistics", len(training)) as advance:
        statistics = collect(
            state.average, training, seed=settings.seed, run_level=state.stepping.run_level, on_case=advance
        )
    network = to_network(state.average, statistics)
    manifest = _describe(network, parts, config=settings, state=state, run=run)
    manifest = Registry(store).publish(manifest, network.weights)
    _print_summary(manifest, store)
    return manifest


def _open_run(config: TrainingConfig, folder: Path, *, resume: bool) -> TrainingState:
    folder.mkdir(parents=True, exist_ok=True)
    state = new_state(config)
    if resume:
        checkpoint.restore(state, folder, config=config)
        console.print(f"resumed at iteration {state.iteration}")
    elif checkpoint.exists(folder):
        raise CheckpointMismatchError(f"{folder} holds a run already: add --resume, or choose another with --run")
    else:
        (folder / METRICS_FILE).unlink(missing_ok=True)  # of a run that died before its first checkpoint
    return state


def _describe(
    network: Network,
    parts: tuple[Sequence[Case], Sequence[Case]],
    *,
    config: TrainingConfig,
    state: TrainingState,
    run: Path,
) -> Manifest:
    """Calibrate on training scans, evaluate on the validation part, and write it all into a manifest."""
    training, validation = parts
    contract = derive_contract(training, config=config)
    judge = scan_judge(
        network, preprocessing(config), contract, engine=get_engine(), members=config.calibration.members
    )
    calibration, outcomes = _outcomes(judge, training, validation, config=config)
    lines = fit_lines(calibration, members=config.calibration.members)
    _keep(calibration, outcomes, line=lines[-1], config=config, run=run)
    gate = Gate(lines, contract.volume_ml, config.calibration.min_dice)
    nqm_gate = Gate(lines, contract.volume_ml, config.calibration.min_dice, contract=False)
    with _progress("low precision", len(validation)) as advance:
        low_precision = low_precision_agreement(
            network,
            validation,
            nqm_gate,
            preprocessing=preprocessing(config),
            members=config.calibration.members,
            on_case=advance,
        )
    return build_manifest(
        network.architecture,
        config=config,
        parts=parts,
        contract=contract,
        lines=lines,
        metrics={
            "validation": detection_table(outcomes, gate),
            "validation_without_contract": detection_table(outcomes, nqm_gate),
        },
        minutes=state.seconds / 60,
        low_precision=low_precision,
    )


def _outcomes(
    judge: Judge, training: Sequence[Case], validation: Sequence[Case], *, config: TrainingConfig
) -> tuple[list[Outcome], list[Outcome]]:
    section = config.calibration
    with _progress("calibration", min(section.scans, len(training)) * (1 + section.spikes_per_scan)) as advance:
        calibration = calibration_outcomes(training, judge, config=config, on_scan=advance)
    with _progress("evaluation", len(validation) * (1 + len(ARTEFACTS))) as advance:
        return calibration, validation_outcomes(validation, judge, config=config, on_scan=advance)


def _keep(
    calibration: Sequence[Outcome], outcomes: Sequence[Outcome], *, line: Line, config: TrainingConfig, run: Path
) -> None:
    """Leave every figure and the picture of the calibration in the run's folder."""
    final = [one for one in calibration if one.members == line.members]
    figures = {"calibration": [asdict(one) for one in calibration], "validation": [asdict(one) for one in outcomes]}
    (run / "outcomes.json").write_text(json.dumps(figures), encoding="utf-8")
    min_dice = config.calibration.min_dice
    draw_calibration(final, outcomes, line=line, min_dice=min_dice, picture=run / "calibration.png")


def _shown(advance: Advance) -> Callable[[Report], None]:
    """Show every report's loss and Dice, smoothed; a line now and then where nobody sees a bar."""
    smooth = {"loss": 0.0, "dice": 0.0, "weight": 0.0}

    def show(report: Report) -> None:
        smooth["weight"] = SMOOTHING * smooth["weight"] + 1 - SMOOTHING
        for name, value in (("loss", report.loss), ("dice", report.dice)):
            smooth[name] = SMOOTHING * smooth[name] + (1 - SMOOTHING) * value
        text = f"loss {smooth['loss'] / smooth['weight']:.3f}  Dice {smooth['dice'] / smooth['weight']:.3f}"
        advance(text)
        if not console.is_terminal and report.iteration % LINE_EVERY == 0:
            console.print(f"iteration {report.iteration}  {text}  {report.seconds:.0f} s")

    return show


@contextmanager
def _progress(what: str, total: int, *, done: int = 0) -> Iterator[Advance]:
    """A bar with the time left; calling what it gives advances by one."""
    columns = (
        TextColumn("{task.description:12}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[text]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    if not console.is_terminal:
        console.print(f"{what}: {total - done} to do")
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total, completed=done, text="")
        yield lambda text="": bar.update(task, advance=1, text=text)


def _print_summary(manifest: Manifest, store: Path) -> None:
    calibration = manifest.calibration
    table = Table("condition", "scans", "Dice", "lowest", "failed", "flagged", "missed", "false alarms", box=None)
    for condition, figures in manifest.metrics["validation"].items():
        table.add_row(condition, *_row(figures))
    console.print(table)
    console.print(
        f"Dice = {calibration.intercept:.3f} {calibration.slope:+.3f} NQM (r {calibration.pearson:.2f}, "
        f"residual {calibration.residual:.3f}, {calibration.points} scans); "
        f"NQM threshold {calibration.nqm_threshold:.3f} for Dice {calibration.min_dice}"
    )
    if manifest.low_precision is not None:
        low = manifest.low_precision
        console.print(
            f"{low.engine}: masks agree with float32 to Dice {low.dice_mean:.5f} (lowest {low.dice_min:.5f}), "
            f"{low.verdicts_changed} of {low.scans} verdicts changed: {'may' if low.proven else 'may not'} be used"
        )
    console.print(f"published {manifest.name} {manifest.version} to {store}")


def _row(figures: dict[str, Any]) -> list[str]:
    return [
        str(figures["scans"]),
        f"{figures['dice_mean']:.3f} ± {figures['dice_sd']:.3f}",
        f"{figures['dice_min']:.3f}",
        str(figures["failures"]),
        str(figures["detected"]),
        str(figures["false_negatives"]),
        str(figures["false_positives"]),
    ]
