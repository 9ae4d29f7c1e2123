"""A training that a trainer runs, as a process of its own (`worker.training`).

    python -m training.served DATASET CONFIG STORE RUN

It goes on where the run in the folder RUN stands, and publishes a candidate. The folder tells how far it is and how it
ended (`jobs.datasets`); both are JSON, and replaced whole.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from imaging.errors import ImagingError
from jobs.datasets import ENDED_FILE, PROGRESS_FILE
from model_store.durable import locked, replace
from model_store.errors import ModelStoreError
from nca.errors import NcaError
from ncagate.orphans import die_with_parent
from training.artefacts import CLEAN
from training.config import TrainingConfig, load_config
from training.errors import TrainingError
from training.job import run
from training.loop import Report
from training.outcomes import Outcome
from training.watch import Watch

TELL_S = 0.5
"""The progress is written so often, and not more."""
DETAIL_CHARACTERS = 2000


def main(arguments: Sequence[str]) -> int:
    """Train, unless that has ended already; exit code 0 where the folder says how it ended."""
    dataset, config, store, folder = (Path(one) for one in arguments)
    with locked(folder):  # a trainer that lost its lease may not have noticed yet
        if not (folder / ENDED_FILE).exists():
            end = _end(dataset, config, store=store, folder=folder)
            replace(folder / ENDED_FILE, json.dumps(end).encode())
    return 0


def _end(dataset: Path, config: Path, *, store: Path, folder: Path) -> dict[str, str]:
    """What was published, or why nothing was; what is nobody's fault but the program's is raised."""
    try:
        watch = FileWatch(load_config(config), folder / PROGRESS_FILE)
        manifest = run(data=dataset, config=config, store=store, resume=True, run=folder, candidate=True, watch=watch)
    except (TrainingError, ModelStoreError, NcaError, ImagingError) as error:
        return {"code": error.code, "detail": str(error)[:DETAIL_CHARACTERS]}
    return {"model": manifest.name, "version": manifest.version}


class FileWatch(Watch):
    """Writes how far a training is into a file, as `jobs.trainings.Figures` has it."""

    def __init__(self, config: TrainingConfig, file: Path) -> None:
        self._file, self._folds, self._each = file, config.folds, config.optimisation.iterations
        self._began: tuple[float, int] | None = None
        self._written = 0.0
        self._dices: list[float] = []
        self._last: dict[str, Any] = {}

    def iterated(self, fold: int, report: Report) -> None:
        """As `Watch.iterated`."""
        now, done, all_of_them = time.monotonic(), fold * self._each + report.iteration, self._folds * self._each
        if self._began is None:
            self._began = now, done - 1
        seconds = (now - self._began[0]) / (done - self._began[1])
        self._last = {
            "stage": f"fold {fold + 1} of {self._folds}", "iteration": done, "iterations": all_of_them,
            "loss": report.loss, "dice": report.dice, "eta_s": seconds * (all_of_them - done),
        }  # fmt: skip
        if now - self._written > TELL_S:
            self._write()

    def judged(self, fold: int, outcomes: Sequence[Outcome]) -> None:
        """As `Watch.judged`."""
        self._dices += [one.dice for one in outcomes if one.condition.kind == CLEAN]
        self._write()

    def _write(self) -> None:
        self._written = time.monotonic()
        mean = sum(self._dices) / len(self._dices) if self._dices else None
        replace(self._file, json.dumps(self._last | {"validation_dice": mean}).encode())


if __name__ == "__main__":
    die_with_parent(os.getppid())
    sys.exit(main(sys.argv[1:]))
