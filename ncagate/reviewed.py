"""`ncagate export-reviews`: what people decided, as labels to evaluate, calibrate and train with."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

from jobs.blobs import GZIP_MAGIC, Blobs, beginning
from jobs.models import Job, Review
from jobs.state import Decision

TABLE = "reviews.csv"
COLUMNS = (
    "job", "model", "version", "verdict", "predicted_dice", "nqm", "decision", "at", "client", "reviewer", "comment",
    "file",
)  # fmt: skip


class ExportExistsError(Exception):
    """The folder holds an export already; ``code`` is stable."""

    code: ClassVar[str] = "export_exists"


@dataclass(frozen=True)
class Exported:
    """How many decisions were written, and how many confirmed masks with their scans."""

    decisions: int
    masks: int


def export(decided: Iterable[tuple[Job, Review]], blobs: Blobs, out: Path) -> Exported:
    """Write ``out``/reviews.csv, one row a job with the decision that holds, and of every confirmed mask
    ``images/<job>.nii.gz`` and ``labels/<job>.nii.gz``, as `ncagate evaluate`, `calibrate` and `train` take them.

    ``file`` of a row is empty where there is no mask to learn from: it was rejected, is empty, or its files are gone.

    Raises:
        ExportExistsError: there is one in the folder.
    """
    if (out / TABLE).exists():
        raise ExportExistsError(f"{out / TABLE} exists: an export is not mixed with another one")
    for folder in (out / "images", out / "labels"):
        folder.mkdir(parents=True, exist_ok=True)
    decisions = masks = 0
    with (out / TABLE).open("w", newline="", encoding="utf-8") as text:
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        for job, review in decided:
            file = _copy(job, blobs, out) if review.decision is Decision.CONFIRM and _outlined(job) else ""
            writer.writerow([*_row(job, review), file])
            decisions += 1
            masks += bool(file)
    return Exported(decisions, masks)


def _outlined(job: Job) -> bool:
    """Whether there is anything in the mask: an empty one, of a scan that was not segmented, teaches nothing."""
    return bool((job.result or {}).get("volume_ml"))


def _row(job: Job, review: Review) -> list[object]:
    result = job.result or {}
    return [
        job.id,
        job.request.model,
        job.request.version,
        *(result.get(name) for name in ("verdict", "predicted_dice", "nqm")),
        review.decision.value,
        datetime.fromtimestamp(review.at, UTC).isoformat(timespec="seconds"),
        review.client,
        *(_plain(one) for one in (review.reviewer, review.comment)),
    ]


def _plain(text: str) -> str:
    """Text that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def _copy(job: Job, blobs: Blobs, out: Path) -> str:
    """The name of the pair of files; empty where one of them is gone."""
    mask, scan = blobs.find(job.id, job.attempt, "mask.nii.gz"), blobs.scan(job.id, job.attempt)
    if scan is None or mask is None:
        return ""
    name = f"{job.id}.nii.gz"
    with (out / "labels" / name).open("wb") as target:
        target.writelines(mask.chunks())
    packed, image = beginning(scan).startswith(GZIP_MAGIC), out / "images" / name
    with image.open("wb") if packed else gzip.open(image, "wb") as target:
        target.writelines(scan.chunks())
    return name
