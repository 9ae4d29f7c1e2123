"""From trained weights and figures to a manifest."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version as distribution_version
from typing import Any

from model_store.manifest import (
    Calibration,
    CodedConcept,
    InputContract,
    LowPrecision,
    Manifest,
    Preprocessing,
    Segment,
    TrainingRecord,
)
from nca.architecture import Architecture
from nca.quality import Line
from training.config import TrainingConfig
from training.data import Case

VERSION_FORMAT = "%Y%m%d-%H%M%S"
"""Versions are named by the moment (UTC) they were made, so that they sort by age."""


def build_manifest(
    architecture: Architecture,
    *,
    config: TrainingConfig,
    parts: tuple[Sequence[Case], Sequence[Case]],
    contract: InputContract,
    lines: Sequence[Line],
    metrics: dict[str, Any],
    minutes: float,
    low_precision: LowPrecision | None,
) -> Manifest:
    """The manifest of a new version; ``parts`` are the training and the validation scans."""
    now = datetime.now(UTC).replace(microsecond=0)
    training, validation = (tuple(case.name for case in part) for part in parts)
    return Manifest(
        name=config.model.name,
        version=now.strftime(VERSION_FORMAT),
        created=now,
        code_version=distribution_version("ncagate"),
        licence=config.model.licence,
        attribution=config.model.attribution,
        intended_use=config.model.intended_use,
        architecture=architecture,
        parameters=architecture.parameter_count(),
        preprocessing=preprocessing(config),
        segments=tuple(
            Segment(label=label, name=one.name, code=CodedConcept(**one.code.model_dump()))
            for label, one in enumerate(config.segments, start=1)
        ),
        contract=contract,
        training=TrainingRecord(
            data=config.model.attribution,
            seed=config.seed,
            training_scans=training,
            validation_scans=validation,
            config=config.model_dump(mode="json"),
            iterations=config.optimisation.iterations,
            minutes=round(minutes, 1),
        ),
        metrics=metrics,
        calibration=Calibration.from_lines(tuple(lines), min_dice=config.calibration.min_dice),
        low_precision=low_precision,
        files={},
    )


def preprocessing(config: TrainingConfig) -> Preprocessing:
    """How a scan becomes the network's input."""
    return Preprocessing(spacing_mm=config.model.spacing_mm)
