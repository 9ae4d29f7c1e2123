"""reference.csv of a version: its signals on clean scans, one row a scan, which later jobs are compared with."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from model_store.durable import replace
from model_store.manifest import MANIFEST_FILE, REFERENCE_FILE, Manifest

_SCAN = "scan"


@dataclass(frozen=True)
class Reference:
    """Signals by name, one value per scan; every scan has all of them."""

    scans: tuple[str, ...]
    signals: Mapping[str, tuple[float, ...]]

    @classmethod
    def of(cls, rows: Mapping[str, Mapping[str, float]]) -> Reference:
        """From each scan's signals; a signal that one scan lacks is left out."""
        names = [name for name in next(iter(rows.values()), {}) if all(name in row for row in rows.values())]
        return cls(tuple(rows), {name: tuple(row[name] for row in rows.values()) for name in names})

    def encode(self) -> bytes:
        """The file's content."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow((_SCAN, *self.signals))
        for row in zip(self.scans, *self.signals.values(), strict=True):
            writer.writerow((row[0], *(f"{value:.6g}" for value in row[1:])))
        return text.getvalue().encode()

    @classmethod
    def decode(cls, data: bytes) -> Reference:
        """What `encode` wrote.

        Raises:
            ValueError: the content is not that of such a file, or it has no scan.
        """
        head, *rows = csv.reader(io.StringIO(data.decode())) if data.strip() else [[]]
        if head[:1] != [_SCAN] or not rows or any(len(row) != len(head) for row in rows):
            raise ValueError("it is not a table of scans and their signals")
        columns = list(zip(*rows, strict=True))
        signals = {name: tuple(map(float, column)) for name, column in zip(head[1:], columns[1:], strict=True)}
        return cls(columns[0], signals)


def attach(folder: Path, manifest: Manifest, reference: Reference) -> Manifest:
    """Give a version that was published without one its reference, in its folder; returns the manifest that is there.

    The one thing that is ever added to a version. Until the manifest is replaced, by one rename, the file counts for
    nothing.
    """
    data = reference.encode()
    sums = {**manifest.files, REFERENCE_FILE: hashlib.sha256(data).hexdigest()}
    manifest = manifest.model_copy(update={"files": sums})
    replace(folder / REFERENCE_FILE, data)
    replace(folder / MANIFEST_FILE, manifest.to_json().encode())
    return manifest
