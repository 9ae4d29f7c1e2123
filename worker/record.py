"""What is said of a scan, and of each structure in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from model_store.manifest import Manifest
from nca.gate import Reason, Rule, Verdict


@dataclass(frozen=True)
class Origin:
    """Names a result and says when it was asked for; a retry of the same has the same, and so the same identifiers."""

    identity: str
    created: datetime


@dataclass(frozen=True)
class StructureRecord:
    """What is said of one structure; the union of several has no label of its own.

    Attributes:
        dice_interval: range of the true Dice (90 %).
        required_dice: what the predicted Dice had to reach.
    """

    label: int | None
    name: str
    verdict: Verdict
    reasons: tuple[Reason, ...]
    nqm: float | None
    predicted_dice: float | None
    dice_interval: tuple[float, float] | None
    required_dice: float | None
    pairwise_dice: float | None
    nqm_threshold: float | None
    volume_ml: float


@dataclass(frozen=True)
class Record:
    """What is said of a scan: accepted only where every structure is; the figures are those of the worst one.

    Attributes:
        volume_ml: of all segments together.
        roi: the region of interest that was looked at (`imaging.roi`), None where it was the whole scan.
        input_statistics: figures of the scan for the drift monitor (`model_store.signals`).
        segments: one record per segment, and with several one more, of their union.
    """

    verdict: Verdict
    reasons: tuple[Reason, ...]
    rule: Rule
    nqm: float | None
    predicted_dice: float | None
    dice_interval: tuple[float, float] | None
    required_dice: float | None
    pairwise_dice: float | None
    min_dice: float
    alpha: float
    nqm_threshold: float | None
    volume_ml: float
    members: int
    model: str
    version: str
    seed: int
    roi: str | None
    engine: str
    seconds: float
    stage_seconds: dict[str, float]
    warnings: tuple[str, ...]
    input_statistics: dict[str, float]
    segments: tuple[StructureRecord, ...]

    def to_json(self) -> dict[str, Any]:
        """The record as plain JSON values."""
        return asdict(self)


def worst_of(records: Sequence[StructureRecord]) -> StructureRecord:
    """A flagged structure before an accepted one, then the lowest predicted Dice."""
    return min(records, key=lambda one: (one.verdict == "accept", one.predicted_dice or 0.0))


def caption(record: StructureRecord, *, manifest: Manifest) -> list[str]:
    """The lines beneath a preview."""
    figures = [f"{manifest.name} {manifest.version}", f"{record.volume_ml:.2f} ml"]
    if record.predicted_dice is not None:
        low, high = record.dice_interval or (record.predicted_dice, record.predicted_dice)
        between = f" ({low:.2f} to {high:.2f})" if high > low else ""
        figures.append(f"predicted Dice {record.predicted_dice:.2f}{between}")
    if record.nqm is not None:
        figures.append(f"NQM {record.nqm:.3f}")
    return [" · ".join(figures), *(reason.detail for reason in record.reasons)]
