"""What de-identification costs the arrival of an instance, beside keeping it as it comes.

    python -m benchmarks.deidentify [SERIES] [--json FILE] [--rounds N]

Milliseconds from an instance in the scratch folder to the moment when it, and what was taken from it, is durably on the
disk: the first time, and when it is sent again. The series is a folder; without one a made-up series is used. Sides
are run in turn, in one run.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter

from cryptography.fernet import Fernet
from pydicom.uid import MRImageStorage
from rich.console import Console
from rich.table import Table

from benchmarks.reading import make_series
from benchmarks.stopwatch import interleaved
from jobs.database import open_database, upgrade
from jobs.repository import JobRepository
from model_store.registry import Registry
from ncagate.settings import Settings
from pacs.collect import open_collection
from pacs.config import DeidentifySection, PacsConfig

SLICES = 100


def main(arguments: Sequence[str]) -> int:
    """Measure, print, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("series", type=Path, nargs="?")
    parser.add_argument("--json", type=Path, default=Path("bench-out/deidentify.json"))
    parser.add_argument("--rounds", type=int, default=7)
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="ncagate-") as name:
        folder = Path(name)
        given = chosen.series or folder / "series"
        if chosen.series is None:
            make_series(given, MRImageStorage, SLICES)
        files = sorted(one for one in given.rglob("*") if one.is_file())
        taken = measure(files, folder, rounds=chosen.rounds)
    table = Table("side", "ms an instance", box=None)
    for side, milliseconds in taken.items():
        table.add_row(side, f"{milliseconds:.2f}")
    Console().print(table)
    chosen.json.parent.mkdir(parents=True, exist_ok=True)
    chosen.json.write_text(json.dumps({"instances": len(files), "ms": taken}, indent=2) + "\n", encoding="utf-8")
    return 0


def measure(files: Sequence[Path], folder: Path, *, rounds: int) -> dict[str, float]:
    """Milliseconds an instance of each side, medians."""
    key = folder / "key"
    key.write_bytes(Fernet.generate_key())
    sides: dict[str, Callable[[], float]] = {}
    for name, section in (("as it comes", None), ("de-identified", DeidentifySection(key_file=key))):
        for again in (False, True):
            side = f"{name}, again" if again else name
            sides[side] = partial(_seconds, files, folder, PacsConfig(deidentify=section), again=again)
    for one in sides.values():
        one()  # everything is imported
    return {side: 1000 * taken / len(files) for side, taken in interleaved(sides, rounds=rounds).items()}


def _seconds(files: Sequence[Path], folder: Path, config: PacsConfig, *, again: bool) -> float:
    with tempfile.TemporaryDirectory(dir=folder) as name:
        settings = Settings(data=Path(name))
        upgrade(settings.database)
        jobs = JobRepository(open_database(settings.database))
        collection = open_collection(settings, config=config, jobs=jobs, registry=Registry(settings.models))
        with collection.blobs.staging() as scratch:
            staged = [scratch / f"{number:04d}" for number in range(len(files))]
            for source, target in zip(files, staged, strict=True):
                target.write_bytes(source.read_bytes())
            if again:
                collection.receive(staged, sender="benchmark")
            start = perf_counter()
            collection.receive(staged, sender="benchmark")
            taken = perf_counter() - start
        jobs.close()
        return taken


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
