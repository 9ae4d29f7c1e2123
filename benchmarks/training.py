"""What a training iteration costs, engine by engine, as `training.loop.train` does it.

"published" is the architecture as published in eager torch: every cell computed, torch's own backward of the
convolution. "torch" is the project's readable model, which computes fired cells only and has faster gradients.

    python -m benchmarks.training [--json FILE] [--data FOLDER] [--config FILE] [--rounds N]

All engines train in one process, iteration by iteration in turn, from the same seed; their ratio is what holds on
another machine. Without the scans in FOLDER, crops of noise of the same size are trained on.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Column, Table

from benchmarks.published import published_level
from benchmarks.stopwatch import interleaved
from imaging.volume import Volume
from nca.errors import EngineUnavailableError
from training import loop
from training.checkpoint import TrainingState
from training.config import PatchSection, TrainingConfig, load_config
from training.data import Case, find_cases, load_case

NewState = Callable[[TrainingConfig], TrainingState]


def new_published_state(config: TrainingConfig) -> TrainingState:
    """A run whose levels are stepped as published."""
    state = loop.new_state(config, engine="torch")
    return replace(state, stepping=replace(state.stepping, run_level=published_level))


ENGINES: Mapping[str, NewState] = {
    "published": new_published_state,
    "torch": partial(loop.new_state, engine="torch"),
    "native": partial(loop.new_state, engine="native"),
}
"""How a run is begun on each engine; ratios are to the first."""
SCANS = 16
"""Enough that crops differ."""

console = Console()


def main(arguments: Sequence[str]) -> int:
    """Measure, print, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, default=Path("bench-out/training.json"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data/hippocampus"))
    parser.add_argument("--config", type=Path, default=Path("training/configs/hippocampus.toml"))
    parser.add_argument("--rounds", type=int, default=9)
    chosen = parser.parse_args(arguments)
    config = load_config(chosen.config)
    scans = load_scans(chosen.data, config=config) if chosen.data.is_dir() else random_scans(config)
    rows = measure(ENGINES, scans, config=config, rounds=chosen.rounds)
    console.print(_table(rows, title="one training iteration, " + ("scans" if chosen.data.is_dir() else "noise")))
    chosen.json.parent.mkdir(parents=True, exist_ok=True)
    chosen.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return 0


def load_scans(folder: Path, *, config: TrainingConfig) -> list[Case]:
    """The first scans of a folder of labelled ones."""
    return [load_case(image, label, config=config) for image, label in find_cases(folder)[:SCANS]]


def random_scans(config: TrainingConfig) -> list[Case]:
    """Scans of noise, a little larger than the crops, with random labels."""
    rng = np.random.default_rng(0)
    shape = tuple(n + 2 for n in config.optimisation.crop)
    scans = []
    for number in range(SCANS):
        image = rng.standard_normal(shape, dtype=np.float32)
        truth = rng.random((len(config.segments), *shape)) < 0.1
        scans.append(Case(f"noise {number}", Volume(image, np.eye(4)), truth, image[None], truth.astype(np.float32)))
    return scans


def measure(
    engines: Mapping[str, NewState], scans: Sequence[Case], *, config: TrainingConfig, rounds: int
) -> list[dict[str, Any]]:
    """For each size of patches and each engine: median seconds of an iteration; then of the whole configured run."""
    loop._keep_freed_memory()  # as train does
    states = _begin(engines, config)
    section, rows = config.optimisation, []
    ends = [*(patch.start for patch in section.patches[1:]), 1.0]
    whole = dict.fromkeys(states, 0.0)
    for patch, end in zip(section.patches, ends, strict=True):
        seconds = _phase(states, scans, patch, config=config, rounds=rounds)
        rows += _rows("x".join(map(str, patch.size)), seconds, rounds=rounds)
        for name, taken in seconds.items():
            whole[name] += taken * (end - patch.start) * section.iterations
    return rows + _rows(f"all {section.iterations} iterations", whole, rounds=rounds)


def _begin(engines: Mapping[str, NewState], config: TrainingConfig) -> dict[str, TrainingState]:
    """A fresh run on every engine that runs here."""
    states = {}
    for name, new_state in engines.items():
        with suppress(EngineUnavailableError):
            states[name] = new_state(config)
    return states


def _phase(
    states: Mapping[str, TrainingState],
    scans: Sequence[Case],
    patch: PatchSection,
    *,
    config: TrainingConfig,
    rounds: int,
) -> dict[str, float]:
    """Median seconds of an iteration of every engine, from the first that trains on ``patch``."""
    sides = {name: partial(_iteration, state, scans, config=config) for name, state in states.items()}
    for state in states.values():
        state.iteration = math.ceil(patch.start * config.optimisation.iterations)
    interleaved(sides, rounds=1)  # the first on a new size also finds its memory
    return interleaved(sides, rounds=rounds)


def _iteration(state: TrainingState, scans: Sequence[Case], *, config: TrainingConfig) -> float:
    start = time.perf_counter()
    loop._iterate(state, scans, config=config)
    state.iteration += 1
    return time.perf_counter() - start


def _rows(part: str, seconds: Mapping[str, float], *, rounds: int) -> list[dict[str, Any]]:
    reference = next(iter(seconds.values()))
    return [
        {"part": part, "engine": name, "seconds": taken, "times_faster": reference / taken, "rounds": rounds}
        for name, taken in seconds.items()
    ]


def _table(rows: Sequence[dict[str, Any]], *, title: str) -> Table:
    reference = rows[0]["engine"]
    columns = (Column(one, justify="right") for one in ("time", f"times faster than {reference}"))
    table = Table("patch", "engine", *columns, title=title, box=None)
    for row in rows:
        table.add_row(row["part"], row["engine"], _time(row["seconds"]), f"{row['times_faster']:.2f}")
    return table


def _time(seconds: float) -> str:
    return f"{seconds:.3f} s" if seconds < 60 else f"{seconds / 60:.1f} min"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
