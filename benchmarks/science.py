"""What the verdict is worth: everything is computed from the outcomes of a cross-validation (`ncagate train`).

    python -m benchmarks.science --run RUN [--config FILE] [--json FILE]

Each fold's outcomes are judged by a gate that was calibrated on the other folds. "left out" goes further: the kind
of damage that is judged was not in the calibration either.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Column, Table

from model_store.calibration import scan_numbers
from model_store.manifest import InputContract, Range
from nca.conformal import COVERAGE
from nca.gate import Gate, Policy
from nca.regression import fit_regression
from training.artefacts import KINDS, SEVERITIES
from training.calibrate import REGRESSION, calibrator
from training.config import CalibrationSection, TrainingConfig, load_config
from training.console import detections, qualities_table, share
from training.contract import derive_contract
from training.data import folds, load_cases
from training.evaluate import Judged, cross_judged, detection, detection_table, judge_all, others
from training.measures import Figure, Scored, measure
from training.outcomes import Outcome, read_outcomes

MARGIN = 0.05
"""How far below the limit an accepted mask may be before it counts as badly wrong."""
ALPHAS = (0.01, 0.02, 0.05, 0.1, 0.2)
LIMITS = (0.75, 0.8, 0.85, 0.88)
SINGLE = {
    "NQM": "nqm", "log NQM": "log_nqm", "NQM of masks": "mask_nqm", "pairwise Dice": "disagreement",
    "entropy": "entropy",
}  # fmt: skip

console = Console(width=165)


def main(arguments: Sequence[str]) -> int:
    """Compute, print, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--run", type=Path, required=True, help="folder of a finished `ncagate train`")
    parser.add_argument("--config", type=Path, default=Path("training/configs/hippocampus.toml"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data/hippocampus"))
    parser.add_argument("--json", type=Path, default=Path("bench-out/science.json"))
    chosen = parser.parse_args(arguments)
    config = load_config(chosen.config)
    name = f"outcomes-{config.calibration.members}.csv"
    parts = [read_outcomes(chosen.run / f"fold-{index}" / name) for index in range(config.folds)]
    results = measure_all(parts, _contract(chosen.data, config), config=config)
    chosen.json.parent.mkdir(parents=True, exist_ok=True)
    chosen.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return 0


def _contract(data: Path, config: TrainingConfig) -> InputContract:
    """Of the first fold's training scans, as published."""
    return derive_contract(folds(load_cases(data, config=config), config=config)[0].training, config=config)


def measure_all(
    parts: Sequence[Sequence[Outcome]], contract: InputContract, *, config: TrainingConfig
) -> dict[str, Any]:
    """Every table, printed and returned as plain values; ``parts`` are the folds' outcomes."""
    section, names = config.calibration, config.structures
    policy = Policy(section.min_dice, section.alpha)
    recalibrated = calibrator(contract, section, patient=config.patient)
    tables = {
        "conformal": cross_judged(parts, recalibrated, policy),
        "conformal, without the input check": cross_judged(parts, recalibrated, policy, contract=False),
        "the paper's NQM line": cross_judged(parts, recalibrated, Policy(section.min_dice, section.alpha, "nqm")),
    }
    results: dict[str, Any] = {"detection": {}}
    for title, judged in tables.items():
        figures = detection_table(judged, structures=names, min_dice=section.min_dice)
        results["detection"][title] = figures
        for name, groups in figures.items():
            console.print(detections(f"{name}: {title}", groups))
    for index, name in enumerate(names):
        own = [[one for one in part if one.structure == index] for part in parts]
        results[name] = {
            "severities": _severities(own, section=section),
            "scores": _scores(own, section=section),
            "left_out": _left_out(own, _calibrator_of(contract, config, index), policy=policy),
            "risk": _risk(own, _calibrator_of(contract, config, index)),
        }
        _print_severities(name, results[name]["severities"], section=section)
        scores = results[name]["scores"].items()
        console.print(qualities_table(name, {score: _figures(each) for score, each in scores}))
        _print_left_out(name, results[name]["left_out"])
        _print_risk(name, results[name]["risk"])
    return results


def _calibrator_of(contract: InputContract, config: TrainingConfig, index: int) -> Callable[[Sequence[Outcome]], Gate]:
    """Gates of one structure from its outcomes alone."""
    ranges: tuple[Range, ...] = (contract.volume_ml[index],)
    one = contract.model_copy(update={"volume_ml": ranges, "border_max": (contract.border_max[index],)})

    recalibrated = calibrator(one, config.calibration, patient=config.patient)
    return lambda outcomes: recalibrated(_as_only(outcomes))[0]


def _as_only(outcomes: Sequence[Outcome]) -> list[Outcome]:
    return [replace(one, structure=0) for one in outcomes]


def _severities(parts: Sequence[Sequence[Outcome]], *, section: CalibrationSection) -> dict[str, dict[str, Any]]:
    """Dice of each kind at each severity."""
    whole = [one for part in parts for one in part if one.observed.members == section.members]
    results = {}
    for condition in sorted({one.condition for one in whole}):
        dices = np.array([one.dice for one in whole if one.condition == condition])
        failed = float(np.mean(dices < section.min_dice))
        results[str(condition)] = {"outcomes": len(dices), "dice_mean": float(dices.mean()), "failed_share": failed}
    return results


def _scores(parts: Sequence[Sequence[Outcome]], *, section: CalibrationSection) -> dict[str, dict[str, Any]]:
    """Measures of every score; its predicted Dice is that of a regression on the other folds, over this score alone."""
    whole = [[one for one in part if one.observed.members == section.members] for part in parts]
    known = [[one for one in part if one.observed.evidence is not None] for part in whole]
    flat = [one for part in known for one in part]
    scan, dices = scan_numbers([one.scan for one in flat]), np.array([one.dice for one in flat])
    results = {}
    for title, figures in [*((title, (name,)) for title, name in SINGLE.items()), ("regression", REGRESSION)]:
        predicted = np.concatenate([_predicted(known, index, figures) for index in range(len(known))])
        measured = measure(Scored(scan, dices, predicted, predicted), min_dice=section.min_dice)
        results[title] = {name: asdict(one) for name, one in measured.items()}
    return results


def _predicted(parts: Sequence[Sequence[Outcome]], index: int, names: Sequence[str]) -> np.ndarray:
    rest = others(parts, index)
    seen = [one.observed.evidence for one in rest if one.observed.evidence]
    regression = fit_regression(
        names, np.array([one.vector(names) for one in seen]), np.array([one.dice for one in rest])
    )
    return np.array([regression.predicted_dice(one.observed.evidence) for one in parts[index] if one.observed.evidence])


def _left_out(
    parts: Sequence[Sequence[Outcome]], gate: Callable[[Sequence[Outcome]], Gate], *, policy: Policy
) -> dict[str, dict[str, Any]]:
    """For each kind: judged by gates that saw neither these scans nor this kind."""
    results = {}
    for kind in KINDS:
        judged: list[Judged] = []
        for index, part in enumerate(parts):
            blind = gate([one for one in others(parts, index) if one.condition.kind != kind])
            judged += judge_all(_as_only([one for one in part if one.condition.kind == kind]), [blind], policy)
        accepted = [one for one in judged if not one.flagged]
        bad = [one for one in accepted if one.outcome.dice < policy.min_dice - MARGIN]
        results[kind] = asdict(detection(judged, min_dice=policy.min_dice)) | {
            "accepted": len(accepted),
            "badly_wrong": len(bad),
            "badly_wrong_share": len(bad) / len(accepted) if accepted else None,
        }
    return results


def _risk(parts: Sequence[Sequence[Outcome]], gate: Callable[[Sequence[Outcome]], Gate]) -> list[dict[str, Any]]:
    """For several limits and risks asked for: what was promised and what came, over the folds together."""
    gates = [gate(others(parts, index)) for index in range(len(parts))]
    rows = []
    for min_dice in LIMITS:
        for alpha in ALPHAS:
            policy = Policy(min_dice, alpha)
            judged = [
                one for index, part in enumerate(parts) for one in judge_all(_as_only(part), [gates[index]], policy)
            ]
            found = detection(judged, min_dice=min_dice)
            certified = sum(one.required_dice(policy) is not None for one in gates)
            rows.append(
                {
                    "min_dice": min_dice,
                    "alpha": alpha,
                    "certified_folds": certified,
                    "accepted_share": sum(not one.flagged for one in judged) / len(judged),
                    "risk": found.risk,
                    "coverage": found.coverage,
                }
            )
    return rows


def _figures(measures: dict[str, Any]) -> dict[str, Figure]:
    return {name: Figure(**one) for name, one in measures.items()}


def _print_severities(name: str, figures: dict[str, dict[str, Any]], *, section: CalibrationSection) -> None:
    title = f"{name}: mean Dice at each severity (share below {section.min_dice:g})"
    table = Table("kind", *(Column(str(one), justify="right") for one in SEVERITIES), title=title, box=None)
    for kind in KINDS:
        cells = [figures.get(f"{kind} {severity}") for severity in SEVERITIES]
        table.add_row(kind, *(f"{one['dice_mean']:.3f} ({one['failed_share']:.0%})" if one else "-" for one in cells))
    console.print(table)


def _print_left_out(name: str, kinds: dict[str, dict[str, Any]]) -> None:
    head = ("outcomes", "Dice", "failed", "found", "accepted", "failed of accepted", f"more than {MARGIN} below")
    title = f"{name}: kinds of damage that the calibration never saw"
    table = Table("left out", *(Column(one, justify="right") for one in head), title=title, box=None)
    for kind, one in kinds.items():
        table.add_row(
            kind,
            str(one["outcomes"]),
            f"{one['dice_mean']:.3f}",
            str(one["failures"]),
            f"{one['detected']} ({share(one['detected_share'])})",
            str(one["accepted"]),
            share(one["risk"]),
            f"{one['badly_wrong']} ({share(one['badly_wrong_share'])})",
        )
    console.print(table)


def _print_risk(name: str, rows: Sequence[dict[str, Any]]) -> None:
    head = ("alpha", "folds with a threshold", "accepted", "failed of accepted", f"in the {COVERAGE:.0%} interval")
    table = Table("min Dice", *(Column(one, justify="right") for one in head), title=f"{name}: the guarantee", box=None)
    for one in rows:
        table.add_row(
            f"{one['min_dice']}", f"{one['alpha']}", str(one["certified_folds"]), share(one["accepted_share"]),
            share(one["risk"]), share(one["coverage"]),
        )  # fmt: skip
    console.print(table)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
