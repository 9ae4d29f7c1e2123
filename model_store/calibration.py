"""calibration.csv of a version: what became of the scans that its verdict was calibrated on."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from nca.conformal import Calibrated

COLUMNS = ("structure", "scan", "condition", "predicted", "dice", "refused")
TABLES_KEPT = 16
"""How many versions' tables stay decoded, each some hundred kB."""


@dataclass(frozen=True)
class CalibrationRow:
    """One structure of one scan under one condition; ``predicted`` and ``refused`` as in `nca.conformal.Calibrated`.

    ``scan`` is the patient's name where the training says that several scans are of one.
    """

    structure: int
    scan: str
    condition: str
    predicted: float
    dice: float
    refused: bool


def encode(rows: Sequence[CalibrationRow]) -> bytes:
    """The file's content; figures to four digits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for one in rows:
        figures = f"{one.predicted:.4f}", f"{one.dice:.4f}", int(one.refused)
        writer.writerow((one.structure, one.scan, one.condition, *figures))
    return text.getvalue().encode()


@lru_cache(maxsize=TABLES_KEPT)
def decode(data: bytes, *, structures: int) -> tuple[Calibrated, ...]:
    """One `Calibrated` per structure; of the same bytes the same ones, as every upload asks for them.

    Raises:
        ValueError: the content is not that of such a file, or a structure has no outcomes.
    """
    reader = csv.DictReader(io.StringIO(data.decode()))
    try:
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise ValueError(f"the columns are {reader.fieldnames}")
        rows = [_row(row) for row in reader]
    except (csv.Error, TypeError) as error:  # TypeError: a row with too few columns
        raise ValueError(f"it is not such a table: {error}") from error
    return tuple(calibrated([row for row in rows if row.structure == index]) for index in range(structures))


def _row(row: dict[str, str]) -> CalibrationRow:
    return CalibrationRow(
        int(row["structure"]),
        row["scan"],
        row["condition"],
        float(row["predicted"]),
        float(row["dice"]),
        row["refused"] == "1",
    )


def scan_numbers(scans: Sequence[str]) -> NDArray[np.int64]:
    """Each scan's number, from 0 in the order in which they first come; the shape of ``scans``."""
    numbers = {scan: number for number, scan in enumerate(dict.fromkeys(scans))}
    return np.array([numbers[scan] for scan in scans], dtype=np.int64)


def calibrated(rows: Sequence[CalibrationRow]) -> Calibrated:
    """The rows of one structure as arrays.

    Raises:
        ValueError: there are none, or a figure is not finite.
    """
    if not rows:
        raise ValueError("a structure has no outcomes")
    result = Calibrated(
        scan=scan_numbers([row.scan for row in rows]),
        predicted=np.array([row.predicted for row in rows]),
        dice=np.array([row.dice for row in rows]),
        refused=np.array([row.refused for row in rows]),
    )
    if not (np.isfinite(result.predicted).all() and np.isfinite(result.dice).all()):
        raise ValueError("a figure is not finite")
    return result
