"""What training refuses to do."""

from __future__ import annotations

from typing import ClassVar


class TrainingError(Exception):
    """Base of this package's errors; ``code`` is stable."""

    code: ClassVar[str] = "training_error"


class InvalidConfigError(TrainingError):
    """The configuration file cannot be read or contradicts itself."""

    code = "invalid_config"


class NoTrainingDataError(TrainingError):
    """The folder has too few scans with labels."""

    code = "no_training_data"


class CheckpointMismatchError(TrainingError):
    """The run folder belongs to another configuration, or holds a run that was not to be resumed."""

    code = "checkpoint_mismatch"


class DivergedError(TrainingError):
    """The loss stopped being a finite number."""

    code = "diverged"
