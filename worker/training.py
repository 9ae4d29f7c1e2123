"""One training: claim it, have it run in a process of its own, end it exactly once."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from jobs.database import open_database
from jobs.datasets import CONFIG_FILE, ENDED_FILE, PROGRESS_FILE, Datasets, run_folder
from jobs.errors import INTERNAL_ERROR, DatasetError
from jobs.models import Training
from jobs.trainings import Figures, Trainings
from model_store.durable import replace
from model_store.errors import VersionExistsError
from model_store.registry import Registry, open_registry
from ncagate.settings import Settings

BEAT_S = 0.5
"""How often a running training's row is touched: a cancel reaches the trainer this fast."""
STORE = "store"
"""A folder of the run's, where there is no folder of models."""
PROGRAM = "training.served"
"""The module that trains. It is run and not imported: it takes torch, and its end, whatever the cause, is not ours."""

log = logging.getLogger(__name__)


def _set() -> threading.Event:
    event = threading.Event()
    event.set()
    return event


@dataclass(frozen=True)
class Trainer:
    """Runs trainings, one at a time."""

    settings: Settings
    _stopping: threading.Event = field(default_factory=threading.Event)
    _idle: threading.Event = field(default_factory=_set)

    @cached_property
    def trainings(self) -> Trainings:
        """The rows."""
        return Trainings(open_database(self.settings.database))

    def run_next(self) -> None:
        """Work on the training that has waited longest, if any is queued."""
        self._idle.clear()
        try:
            training = None if self._stopping.is_set() else self.trainings.claim_next(self.settings.lease_s)
            if training is None:
                log.info("woken, and no training is queued")
            else:
                self._run(training)
        finally:
            self._idle.set()

    def hand_back(self, patience_s: float) -> None:
        """Have the training under way stop and queue it again, for another trainer: this process is about to end."""
        self._stopping.set()
        self._idle.wait(patience_s)

    def _run(self, training: Training) -> None:
        log.info("training %s: attempt %d started", training.id, training.attempt)
        try:
            self._attempt(training)
        except DatasetError as error:
            self.trainings.fail(training, error.code, str(error))
        except Exception:  # whatever it was, the training must not be left without an end
            log.exception("training %s: attempt %d broke", training.id, training.attempt)
            self._broke(training)

    def _attempt(self, training: Training) -> None:
        dataset = Datasets(self.settings).folder(training.dataset)
        folder = run_folder(self.settings, training.id)
        folder.mkdir(parents=True, exist_ok=True)
        replace(folder / CONFIG_FILE, training.config.encode())
        store = self._store(folder)
        store.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-P", "-m", PROGRAM, *map(str, (dataset, folder / CONFIG_FILE, store, folder))]
        with (folder / "log.txt").open("ab") as output:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)  # noqa: S603
            try:
                going_on = self._accompany(process, training, folder)
            finally:
                process.kill()
                process.wait()
        if going_on:
            self._end(training, _read(folder / ENDED_FILE), folder)
        elif self._stopping.is_set() and self.trainings.hand_back(training):
            log.warning("training %s: handed back, as the trainer stops", training.id)
        elif self.trainings.cancelled(training):  # else another attempt has taken over
            log.info("training %s: cancelled", training.id)

    def _accompany(self, process: subprocess.Popen[bytes], training: Training, folder: Path) -> bool:
        """Beat until the process has ended; False where it must not go on."""
        while True:
            with suppress(subprocess.TimeoutExpired):
                process.wait(BEAT_S)
                return True
            if self._stopping.is_set():
                return False
            figures = Figures(**_read(folder / PROGRESS_FILE))
            try:
                if not self.trainings.heartbeat(training.id, training.attempt, figures, lease_s=self.settings.lease_s):
                    return False
            except SQLAlchemyError:  # the lease outlives a short outage of the database
                log.warning("training %s: the database did not take a heartbeat", training.id)

    def _store(self, folder: Path) -> Path:
        """Where the training publishes to: where the models are in a bucket, a folder of its own."""
        return self.settings.models if self.settings.store_url is None else folder / STORE

    def _end(self, training: Training, end: dict[str, Any], folder: Path) -> None:
        if "version" in end:
            self._hand_on(end["model"], end["version"], folder)
            self.trainings.succeed(training, model=end["model"], version=end["version"])
            log.info("training %s: published %s %s", training.id, end["model"], end["version"])
        elif "code" in end:
            self.trainings.fail(training, end["code"], end["detail"])
            log.info("training %s: failed with %s", training.id, end["code"])
        else:
            log.error("training %s: attempt %d ended without a word", training.id, training.attempt)
            self._broke(training)

    def _hand_on(self, model: str, version: str, folder: Path) -> None:
        """Put what was published into the bucket, unless an attempt before this one has."""
        if self.settings.store_url is not None:
            own, registry = Registry(self._store(folder), shipped=None), open_registry(self.settings)
            with suppress(VersionExistsError):
                registry.adopt(own, model, version, candidate=True)
            registry.check(registry.manifest(model, version))

    def _broke(self, training: Training) -> None:
        """The program itself broke: try again, for it may be the machine, but not for ever."""
        if training.attempt >= self.settings.attempts_max:
            detail = f"the training broke in each of {training.attempt} attempts; its log.txt says how"
            self.trainings.fail(training, INTERNAL_ERROR, detail)
        else:
            self.trainings.hand_back(training)


def _read(file: Path) -> dict[str, Any]:
    """What the program tells; nothing as long as it has not."""
    try:
        told: dict[str, Any] = json.loads(file.read_bytes())
    except FileNotFoundError:
        return {}
    return told
