"""What reading a series of 500 slices takes, beside pydicom alone on the same files; and what the sandbox adds.

    python -m benchmarks.reading [--json FILE] [--rounds N] [--slices N]

pydicom's side reads every file, one after the other, and puts the pixels into one array (`dcmread`, `pixel_array`,
`numpy.stack`): no sorting, no checks, no rescaling. Sides are run in turn, in one run on one machine, so that the ratio
holds where the seconds do not.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid
from rich.console import Console
from rich.table import Table

from benchmarks.stopwatch import interleaved
from imaging.limits import Limits
from imaging.nifti import write_nifti
from imaging.read import read_scan
from imaging.request import Request
from imaging.sandbox import read_in_sandbox

SIDE = 512
GOAL = 1.5
"""Times pydicom's time, of files and of a zip."""
SMALL = (36, 50, 36)
"""Voxels of a small scan."""
TURNS = 20
"""Reads of the small scan a round."""

console = Console()


def main(arguments: Sequence[str]) -> int:
    """Measure, print, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, default=Path("bench-out/reading.json"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--slices", type=int, default=500)
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="ncagate-") as folder:
        results = {
            f"{name}, {chosen.slices} slices": measure_series(Path(folder) / name, kind, chosen.slices, chosen.rounds)
            for name, kind in (("MR", MRImageStorage), ("CT, rescaled", CTImageStorage))
        }
        small = measure_small(Path(folder), rounds=chosen.rounds)
    console.print(_table(results))
    console.print(f"a small NIfTI file: {small['plain_ms']:.1f} ms, in the sandbox {small['sandbox_ms']:.1f} ms")
    chosen.json.parent.mkdir(parents=True, exist_ok=True)
    chosen.json.write_text(json.dumps({"series": results, "small": small}, indent=2) + "\n", encoding="utf-8")
    return 0


def measure_series(folder: Path, kind: UID, slices: int, rounds: int) -> dict[str, Any]:
    """Seconds of each side (medians), and how many times pydicom's they are."""
    files = make_series(folder, kind, slices)
    archive = folder.with_suffix(".zip")
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for number, path in enumerate(files):
            packed.write(path, f"{number:04}.dcm")
    sides: dict[str, Callable[[], float]] = {
        "pydicom": lambda: _seconds(lambda: by_pydicom(files)),
        "pydicom, zip": lambda: _seconds(lambda: zip_by_pydicom(archive)),
        "files": lambda: _ours(files, read_in_sandbox),
        "zip": lambda: _ours([archive], read_in_sandbox),
        "files, no sandbox": lambda: _ours(files, read_scan),
    }
    for measure in sides.values():
        measure()  # the files come from the page cache, and the sandbox is warm
    seconds = interleaved(sides, rounds=rounds)
    ratios = {
        "files": seconds["files"] / seconds["pydicom"],
        "zip": seconds["zip"] / seconds["pydicom, zip"],
        "files, no sandbox": seconds["files, no sandbox"] / seconds["pydicom"],
    }
    return {"seconds": seconds, "ratios": ratios, "goal": GOAL}


def measure_small(folder: Path, *, rounds: int) -> dict[str, float]:
    """Milliseconds of reading a small scan, in this process and in the sandbox."""
    path = folder / "small.nii.gz"
    write_nifti(path, np.random.default_rng(0).normal(0, 1, SMALL).astype(np.float32), np.eye(4))
    sides = {
        "plain_ms": lambda: _seconds(lambda: [_ours([path], read_scan) for _ in range(TURNS)]) / TURNS * 1000,
        "sandbox_ms": lambda: _seconds(lambda: [_ours([path], read_in_sandbox) for _ in range(TURNS)]) / TURNS * 1000,
    }
    return interleaved(sides, rounds=rounds)


def by_pydicom(files: Sequence[Path]) -> np.ndarray:
    """The pixels (slices, rows, columns) in the order of the files."""
    return np.stack([dcmread(path).pixel_array for path in files])


def zip_by_pydicom(archive: Path) -> np.ndarray:
    """The same of a zip, each entry read from its stream."""
    with zipfile.ZipFile(archive) as packed:
        planes = []
        for name in packed.namelist():
            with packed.open(name) as entry:
                planes.append(dcmread(entry).pixel_array)
    return np.stack(planes)


def make_series(folder: Path, kind: UID, slices: int) -> list[Path]:
    """Slices 1 mm apart of noise in 12 bits, with a header as scanners write it; the files in a random order."""
    folder.mkdir()
    dice = np.random.default_rng(0)
    study, series, frame = generate_uid(), generate_uid(), generate_uid()
    files = []
    for number in range(slices):
        one = _slice(kind, number, dice.integers(0, 4096, (SIDE, SIDE), np.uint16))
        one.StudyInstanceUID, one.SeriesInstanceUID, one.FrameOfReferenceUID = study, series, frame
        files.append(folder / f"{number:04}.dcm")
        one.save_as(files[-1], enforce_file_format=True)
    dice.shuffle(files)
    return files


def _slice(kind: UID, number: int, pixels: np.ndarray) -> Dataset:
    one = Dataset()
    one.SOPClassUID, one.SOPInstanceUID = kind, generate_uid()
    one.Modality = "CT" if kind == CTImageStorage else "MR"
    if kind == CTImageStorage:
        one.RescaleIntercept, one.RescaleSlope, one.RescaleType = -1024, 1, "HU"
    one.PatientName, one.PatientID, one.PatientBirthDate, one.PatientSex = "Nobody", "0", "", ""
    one.StudyDate = one.SeriesDate = one.AcquisitionDate = one.ContentDate = "20260101"
    one.StudyTime = one.SeriesTime = one.AcquisitionTime = one.ContentTime = "120000"
    one.ImageType, one.Manufacturer, one.StationName = ["ORIGINAL", "PRIMARY"], "Nobody", "NONE"
    one.StudyDescription = one.SeriesDescription = one.ProtocolName = "noise"
    one.SliceThickness = one.SpacingBetweenSlices = 1.0
    one.RepetitionTime, one.EchoTime, one.FlipAngle, one.KVP = 2000, 3.5, 8, 120
    one.InstanceNumber, one.SeriesNumber, one.AcquisitionNumber = number + 1, 1, 1
    one.ImagePositionPatient, one.ImageOrientationPatient = [-128, -128, number], [1, 0, 0, 0, 1, 0]
    one.PixelSpacing, one.SliceLocation = [0.5, 0.5], number
    one.SamplesPerPixel, one.PhotometricInterpretation, one.PixelRepresentation = 1, "MONOCHROME2", 0
    one.Rows, one.Columns = pixels.shape
    one.BitsAllocated, one.BitsStored, one.HighBit = 16, 12, 11
    one.WindowCenter, one.WindowWidth = 2048, 4096
    one.add_new(0x00291010, "OB", bytes(12_000))  # what a maker keeps for itself
    one.PixelData = pixels.tobytes()
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return one


def _ours(files: Sequence[Path], read: Callable[[Request], Any]) -> float:
    with tempfile.TemporaryDirectory(prefix="ncagate-") as workdir:
        request = Request(files, Path(workdir), Limits())
        return _seconds(lambda: read(request))


def _seconds(work: Callable[[], object]) -> float:
    start = perf_counter()
    work()
    return perf_counter() - start


def _table(results: dict[str, dict[str, Any]]) -> Table:
    table = Table("series", "side", "seconds", f"× pydicom (goal at most {GOAL})", box=None)
    for series, result in results.items():
        for side, seconds in result["seconds"].items():
            ratio = result["ratios"].get(side)
            table.add_row(series, side, f"{seconds:.2f}", "" if ratio is None else f"{ratio:.2f}")
    return table


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
