"""What each part of the method is worth, and what larger networks make of the same scans in the same time.

    python -m benchmarks.ablations [--fold N] [--minutes M] [--seeds S] [--only NAME ... | --print] [--run FOLDER]

Each contender is trained on one fold for so many minutes of one core and judged on the scans held out: thresholded
Dice on their own grid. What was trained stands in FOLDER and is not trained again, so two processes may share the
work with --only. The table's Dice are medians over the seeds; seconds and memory are measured as it is printed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Column, Table
from safetensors.numpy import save_file

from benchmarks.contenders import FULL, Contender, Predictor, contenders
from benchmarks.memory import status_mb
from benchmarks.stopwatch import interleaved
from model_store.loaded import prepare
from model_store.manifest import Preprocessing
from nca.ensemble import MASK_THRESHOLD
from nca.network import FloatArray
from nca.quality import dice
from training.config import TrainingConfig, load_config
from training.data import Case, Fold, folds, load_cases

MEMBERS = (1, 2, 5, 10, 20)
SERVED = 10
"""Members where nothing else is said."""
THREADS = 2
ROUNDS = 5
WEIGHTS, RESULT = "weights.safetensors", "result.json"

console = Console(width=165)


def main(arguments: Sequence[str]) -> int:
    """Train what is missing, print, draw, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--fold", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", help="train these and print no table")
    parser.add_argument("--print", action="store_true", help="train nothing: the table of what was trained")
    parser.add_argument("--config", type=Path, default=Path("training/configs/hippocampus.toml"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data/hippocampus"))
    parser.add_argument("--run", type=Path, default=Path("runs/ablations"))
    parser.add_argument("--picture", type=Path, default=Path("bench-out/ablations.png"))
    parser.add_argument("--json", type=Path, default=Path("bench-out/ablations.json"))
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    config = load_config(chosen.config)
    fold = folds(load_cases(chosen.data, config=config), config=config)[chosen.fold]
    everything = contenders(config)
    run = chosen.run / f"fold-{chosen.fold}-{chosen.minutes:g}-minutes"
    case = fold.held_out[0]
    if chosen.peak:
        name, members = chosen.peak
        _print_peak(everything[name], _weights(run, name), case, members=int(members), config=config)
        return 0
    names = [] if chosen.print else chosen.only or [*everything]
    for seed in range(chosen.seeds):
        for name, contender in everything.items():
            if name in names:
                folder = run / name / f"seed-{seed}"
                sizes = (MEMBERS if name == FULL else (SERVED,)) if contender.ensemble else (1,)
                train_one(contender, fold, config=config, seed=seed, minutes=chosen.minutes, run=folder, sizes=sizes)
    if not chosen.only:
        rows = _rows(everything, run, case, config=config)
        rows = [row | {"peak_mb": _peak_mb(arguments, row)} for row in rows]
        console.print(_table(rows, title=f"fold {chosen.fold}, {chosen.minutes:g} minutes of one core"))
        chosen.json.parent.mkdir(parents=True, exist_ok=True)
        chosen.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
        draw(rows, chosen.picture)
    return 0


def train_one(
    contender: Contender,
    fold: Fold,
    *,
    config: TrainingConfig,
    seed: int,
    minutes: float,
    sizes: Sequence[int],
    run: Path,
) -> None:
    """Train, judge on the held-out scans, and keep both; nothing is done where that stands already."""
    if (run / RESULT).is_file():
        return
    run.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    start = time.process_time()
    trained = contender.train(fold.training, seed=seed, minutes=minutes, run=run)
    spent = (time.process_time() - start) / 60
    save_file(dict(trained.weights), run / WEIGHTS)
    predictor = contender.load(run / WEIGHTS, threads=1)
    dices = judge(predictor, fold.held_out, sizes=sizes, preprocessing=config.preprocessing())
    result = {
        "iterations": trained.iterations, "minutes": spent, "parameters": trained.parameters, "seed": seed,
        "dice": {str(members): values for members, values in dices.items()},
    }  # fmt: skip
    (run / RESULT).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    last = dices[max(one for one in dices if one <= SERVED)]
    console.print(f"{run.parent.name}, seed {seed}: {trained.iterations} iterations, Dice {np.mean(last):.4f}")


def judge(
    predictor: Predictor, cases: Sequence[Case], *, sizes: Sequence[int], preprocessing: Preprocessing
) -> dict[int, list[float]]:
    """Dice of every scan, by the number of members whose mean is thresholded."""
    dices: dict[int, list[float]] = {size: [] for size in sizes}
    for case in cases:
        scan = prepare(case.volume, preprocessing).scan
        maps = predictor.predict(scan.array, members=max(sizes))
        for size in sizes:
            mean = np.stack(maps[:size]).mean(axis=0)
            dices[size].append(dice(scan.to_native(mean) > MASK_THRESHOLD, case.truth[0]))
    return dices


def _rows(
    everything: Mapping[str, Contender], run: Path, case: Case, *, config: TrainingConfig
) -> list[dict[str, Any]]:
    """One row a contender that was trained, and one for each further size of the first one's ensemble."""
    trained = {name: _results(run / name) for name in everything if (run / name).is_dir()}
    image = prepare(case.volume, config.preprocessing()).scan.array
    predictors = {name: everything[name].load(_weights(run, name), threads=THREADS) for name in trained}
    rows: list[dict[str, Any]] = []
    timed: dict[tuple[str, int], Predictor] = {}
    for name, results in trained.items():
        sizes = [int(one) for one in results[0]["dice"]]
        for size in sizes:
            timed[name, size] = predictors[name]
            dices = np.array([one["dice"][str(size)] for one in results])  # (seeds, scans)
            rows.append(
                {
                    "name": name, "members": size, "seeds": len(results),
                    "dice_mean": float(np.median(dices.mean(axis=1))), "dice_sd": float(np.median(dices.std(axis=1))),
                    "dice_min": float(np.median(dices.min(axis=1))),
                    "dice_means": dices.mean(axis=1).tolist(),
                    "iterations": int(np.median([one["iterations"] for one in results])),
                    "minutes": float(np.median([one["minutes"] for one in results])),
                    "parameters": results[0]["parameters"],
                    "file_kb": _weights(run, name).stat().st_size / 1000,
                }
            )  # fmt: skip
    seconds = interleaved(
        {key: partial(_seconds, predictor, image, key[1]) for key, predictor in timed.items()}, rounds=ROUNDS
    )
    return [row | {"seconds": seconds[row["name"], row["members"]]} for row in rows]


def _results(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(one.read_text(encoding="utf-8")) for one in sorted(folder.glob(f"seed-*/{RESULT}"))]


def _weights(run: Path, name: str) -> Path:
    return next(iter(sorted((run / name).glob(f"seed-*/{WEIGHTS}"))))


def _seconds(predictor: Predictor, image: FloatArray, members: int) -> float:
    start = time.perf_counter()
    predictor.predict(image, members=members)
    return time.perf_counter() - start


def _peak_mb(arguments: Sequence[str], row: Mapping[str, Any]) -> float:
    """Memory that one scan takes above what was held before it, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.ablations", *arguments, "--peak", row["name"]]
    answer = subprocess.run(  # noqa: S603
        [*command, str(row["members"])], check=True, stdout=subprocess.PIPE, cwd=Path(__file__).resolve().parents[1]
    )
    return float(json.loads(answer.stdout))


def _print_peak(contender: Contender, weights: Path, case: Case, *, members: int, config: TrainingConfig) -> None:
    predictor, image = contender.load(weights, threads=THREADS), prepare(case.volume, config.preprocessing()).scan.array
    start = status_mb("VmRSS")
    predictor.predict(image, members=members)
    print(json.dumps(status_mb("VmHWM") - start))


def _table(rows: Sequence[Mapping[str, Any]], *, title: str) -> Table:
    head = (
        "members", "seeds", "iterations", "Dice, median of seeds", "its means", "parameters", "file kB", "ms a scan",
        "peak MB above start",
    )  # fmt: skip
    table = Table("trained", *(Column(one, justify="right") for one in head), title=title, box=None)
    for row in rows:
        table.add_row(
            row["name"],
            str(row["members"]),
            str(row["seeds"]),
            str(row["iterations"]),
            f"{row['dice_mean']:.4f} ± {row['dice_sd']:.3f}",
            " ".join(f"{one:.4f}" for one in row["dice_means"]),
            f"{row['parameters']:,}",
            f"{row['file_kb']:.0f}",
            f"{1000 * row['seconds']:.0f}",
            f"{row['peak_mb']:.0f}",
        )
    return table


def draw(rows: Sequence[Mapping[str, Any]], picture: Path) -> None:
    """Dice against parameters (seed, figure 4) into a PNG."""
    figure = Figure(figsize=(7.5, 4.5), layout="constrained")
    axes = figure.subplots()
    for row in _as_served(rows):
        axes.plot(row["parameters"], row["dice_mean"], "o", label=f"{row['name']} ({row['dice_mean']:.3f})")
    axes.set(xscale="log", xlabel="learned parameters", ylabel="Dice", title="Dice against size, same training time")
    axes.grid(alpha=0.3)
    axes.legend(loc="center")
    picture.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure).print_png(str(picture))  # type: ignore[no-untyped-call]


def _as_served(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """One row a contender: with the ensemble that is served, or without one."""
    return [*{row["name"]: row for row in rows if row["members"] <= SERVED}.values()]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
