"""The datasets that a deployment trains on: folders under one root, by name. Nothing outside it can be named."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from jobs.errors import DatasetNotFoundError, DatasetUnsuitableError
from ncagate.settings import Settings

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
CONFIG_FILE = "training.toml"
"""The training configuration, in the dataset's folder; `ncagate plan` writes one."""
CONFIG_BYTES_MAX = 65536
PROGRESS_FILE, ENDED_FILE = "progress.json", "ended.json"
"""What the program that trains tells in the run's folder: how far it is (`jobs.trainings.Figures`), how it ended."""


def run_folder(settings: Settings, training_id: str) -> Path:
    """Folder of a training's checkpoints, figures and log."""
    return settings.data / "trainings" / training_id


class Datasets:
    """The folders under `Settings.datasets`."""

    def __init__(self, settings: Settings) -> None:
        self._root = settings.datasets

    def folder(self, name: str) -> Path:
        """The dataset's folder.

        Raises:
            DatasetNotFoundError: there is none of this name, or it leads out of the root.
        """
        if self._root is None:
            raise DatasetNotFoundError("this deployment has no datasets")
        root = self._root.resolve()
        found = (root / name).resolve()
        if not re.fullmatch(NAME, name) or found.parent != root or not found.is_dir():
            raise DatasetNotFoundError(f"no dataset is called {name[:64]!r}")
        return found

    def config(self, name: str) -> str:
        """The dataset's training configuration (TOML); whether it makes sense, the trainer says.

        Raises:
            DatasetNotFoundError: as `folder`.
            DatasetUnsuitableError: it has none, or one that is no TOML.
        """
        try:
            with (self.folder(name) / CONFIG_FILE).open("rb") as file:
                data = file.read(CONFIG_BYTES_MAX + 1)
        except OSError:
            raise DatasetUnsuitableError(f"{name} has no {CONFIG_FILE} that can be read") from None
        if len(data) > CONFIG_BYTES_MAX:
            raise DatasetUnsuitableError(f"the {CONFIG_FILE} of {name} is larger than {CONFIG_BYTES_MAX} bytes")
        try:
            text = data.decode()
            tomllib.loads(text)
        except ValueError:  # of either
            raise DatasetUnsuitableError(f"the {CONFIG_FILE} of {name} is no TOML") from None
        return text
