"""What the files of a scan's result are called."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

ENDINGS = (".nii.gz", ".nii", ".zip")
"""Of files that are scans; a folder is one as well."""


def stems(scans: Sequence[Path]) -> list[str]:
    """The stem of every scan's results: its name without .nii, .nii.gz or .zip; a second one of the name gets `_2`."""
    names: list[str] = []
    for scan in scans:
        stem = scan.resolve().name if scan.name in ("", "..") else scan.name
        for ending in ENDINGS:
            stem = stem.removesuffix(ending)
        candidates = (stem if n == 1 else f"{stem}_{n}" for n in range(1, len(scans) + 1))
        names.append(next(one for one in candidates if one not in names))
    return names
