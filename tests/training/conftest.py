from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nca.evidence import Evidence
from nca.gate import Observed
from tests.balls import write_balls
from training.artefacts import CLEAN, Condition
from training.config import TrainingConfig
from training.outcomes import Outcome

UNDAMAGED = Condition(CLEAN)
TINY: dict[str, Any] = {
    "seed": 3,
    "folds": 4,
    "model": {
        "name": "ball",
        "modalities": ["MR"],
        "spacing_mm": [1.0, 1.0, 1.0],
        "licence": "CC0-1.0",
        "attribution": "Made up for a test.",
        "intended_use": "None.",
    },
    "segments": [
        {"name": "ball", "labels": [1, 2], "code": {"scheme": "99TEST", "value": "1", "meaning": "Ball"}},
    ],
    "architecture": {
        "channels": 8,
        "hidden": 16,
        "levels": [{"kernel": 3, "steps": 4, "scale": [2, 2, 2]}, {"kernel": 3, "steps": 6}],
    },
    "optimisation": {
        "iterations": 6,
        "crop": [16, 16, 16],
        "patches": [{"start": 0.0, "size": [8, 12, 8]}],
        "warmup": 2,
        "checkpoint_every": 2,
    },
    "calibration": {"members": 3},
}


@pytest.fixture
def tiny_config() -> Callable[..., TrainingConfig]:
    """The smallest configuration; keyword arguments replace entries of its optimisation section."""

    def make(**optimisation: object) -> TrainingConfig:
        return TrainingConfig.model_validate({**TINY, "optimisation": {**TINY["optimisation"], **optimisation}})

    return make


@pytest.fixture(scope="session")
def make_outcome() -> Callable[..., Outcome]:
    """A made-up outcome; without ``nqm`` that of an empty mask."""

    def make(
        scan: str = "scan",
        *,
        dice: float = 0.9,
        nqm: float | None = 0.05,
        members: int = 3,
        condition: Condition = UNDAMAGED,
        structure: int = 0,
        breaches: tuple[str, ...] = (),
        volume_ml: float = 3.0,
        border: float = 0.0,
    ) -> Outcome:
        evidence = None
        if nqm is not None:
            evidence = Evidence(
                nqm=nqm,
                log_nqm=float(np.log(nqm + 0.01)),
                mask_nqm=nqm,
                disagreement=nqm / 2,
                entropy=nqm,
                stray=0.0,
                border=border,
            )
        observed = Observed(nqm, finite=True, volume_ml=volume_ml, members=members, evidence=evidence)
        return Outcome(scan, condition, structure, dice, breaches, observed)

    return make


@pytest.fixture(scope="session")
def ball_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen noisy bright balls with their labels."""
    return write_balls(tmp_path_factory.mktemp("balls"))
