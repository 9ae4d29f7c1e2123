"""From trained weights and figures to a manifest."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version as distribution_version
from typing import Any

from model_store.manifest import (
    Calibration,
    CodedConcept,
    LowPrecision,
    Manifest,
    Segment,
    TrainingRecord,
)
from training.config import TrainingConfig
from training.crossval import FoldResult

VERSION_FORMAT = "%Y%m%d-%H%M%S"
"""Versions are named by the moment (UTC) they were made, so that they sort by age."""


def version_name(moment: datetime) -> str:
    """The name of a version made then."""
    return moment.strftime(VERSION_FORMAT)


def build_manifest(
    results: Sequence[FoldResult],
    *,
    config: TrainingConfig,
    calibration: Calibration,
    metrics: dict[str, Any],
    low_precision: LowPrecision | None,
) -> Manifest:
    """The manifest of a new version: the first fold's network."""
    now = datetime.now(UTC).replace(microsecond=0)
    first = results[0]
    architecture = first.network.architecture
    return Manifest(
        name=config.model.name,
        version=version_name(now),
        created=now,
        code_version=distribution_version("ncagate"),
        licence=config.model.licence,
        attribution=config.model.attribution,
        intended_use=config.model.intended_use,
        architecture=architecture,
        parameters=architecture.parameter_count(),
        preprocessing=config.preprocessing(),
        segments=tuple(
            Segment(label=label, name=one.name, code=CodedConcept(**one.code.model_dump()))
            for label, one in enumerate(config.segments, start=1)
        ),
        contract=first.contract,
        training=TrainingRecord(
            data=config.model.attribution,
            seed=config.seed,
            training_scans=tuple(case.name for case in first.fold.training),
            folds=tuple(tuple(case.name for case in one.fold.held_out) for one in results),
            config=config.model_dump(mode="json"),
            iterations=config.optimisation.iterations,
            minutes=round(first.minutes, 1),
        ),
        metrics=metrics,
        calibration=calibration,
        low_precision=low_precision,
        files={},
    )
