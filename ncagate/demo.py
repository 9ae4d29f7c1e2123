"""``make demo``: start the embedded service, post real scans over HTTP, show the verdicts, stop.

python -m ncagate.demo [SCAN ...]
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from imaging.nifti import write_nifti
from ncagate.answers import exit_of, failure
from ncagate.client import Client, JobCancelledError, JobFailedError, Part, ScanError
from ncagate.verdicts import print_verdicts

OUT = Path("demo-out")
MODEL = "hippocampus"
CROP_CENTRE_MM = (-27.0, -22.0, -11.0)
"""In MNI space (RAS+): around the left hippocampus, high enough to hold little of the blanked space below the brain."""
CROP_VOXELS = (36, 50, 40)
START_SECONDS = 60
SCAN_SECONDS = 300
SPIKE = 1.2
"""Strength of the k-space spike in the damaged copy, in standard deviations of the scan."""

console = Console()


@dataclass(frozen=True)
class Shown:
    """A scan of the demo: what to call it in the table, and its files."""

    title: str
    files: Sequence[Path]


def main(arguments: Sequence[str]) -> int:
    """Run the demo; the exit code says whether every scan got a verdict."""
    OUT.mkdir(exist_ok=True)
    scans = [Shown(Path(one).name, _files(Path(one))) for one in arguments] or [
        *template_scans(),
        *shared_scans(),
    ]
    console.print(f"[bold]ncagate demo[/]: {len(scans)} scans over HTTP to the embedded service")
    with serving() as url, Client(url) as client:
        records = [segment(client, scan) for scan in scans]
    print_verdicts(console, [(scan.title, record) for scan, record in zip(scans, records, strict=True)])
    console.print(f"\nMasks and previews are in [bold]{OUT.absolute()}[/]; look at the *_preview.png.")
    return exit_of(records, strict=False)


def template_scans() -> list[Shown]:
    """The hippocampus region of the MNI152 template, and the same with a spike in its k-space."""
    from nilearn.datasets import load_mni152_template  # the `demo` extra; takes a second or two

    template = load_mni152_template(resolution=1)
    centre = np.linalg.solve(template.affine, [*CROP_CENTRE_MM, 1.0])[:3].round().astype(int)
    start = centre - np.array(CROP_VOXELS) // 2
    box = tuple(slice(o, o + n) for o, n in zip(start, CROP_VOXELS, strict=True))
    crop = np.asarray(template.dataobj[box], dtype=np.float32)
    affine = template.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ start
    whole, damaged = OUT / "mni152_left.nii.gz", OUT / "mni152_left_spiked.nii.gz"
    write_nifti(whole, crop, affine)
    write_nifti(damaged, spiked(crop), affine)
    return [
        Shown("MNI152 left hippocampus", [whole]),
        Shown("the same with a spike", [damaged]),
    ]


def spiked(array: np.ndarray) -> np.ndarray:
    """The scan with one bright point in its k-space, as a discharge in the scanner leaves: stripes all over it."""
    grid = np.meshgrid(*(np.arange(n) / n for n in array.shape), indexing="ij")
    wave = np.cos(2 * np.pi * sum(k * axis for k, axis in zip((4, 7, 3), grid, strict=True)))
    result: np.ndarray = (array + SPIKE * array.std() * wave).astype(np.float32)
    return result


def shared_scans() -> list[Shown]:
    """Two real scans from beside the checkout, where they are present: one NIfTI, one DICOM series."""
    shared = Path(__file__).resolve().parents[2] / "shared" / "data"
    nifti = sorted((shared / "hippocampus" / "images").glob("*.nii.gz"))[:1]
    series = [folder for folder in [shared / "dicom" / "hippocampus_crop_1"] if folder.is_dir()]
    return [Shown(one.name, [one]) for one in nifti] + [Shown(f"{one.name} (DICOM)", _files(one)) for one in series]


@contextlib.contextmanager
def serving(*, port: int = 0, data: Path | None = None, **environment: str) -> Iterator[str]:
    """The embedded service, on a free port and with a folder of its own unless told otherwise; its URL."""
    with tempfile.TemporaryDirectory(prefix="ncagate-demo-") as own:
        data = data or Path(own)
        command = [sys.executable, "-m", "ncagate.cli", "serve", "--port", str(port), "--data", str(data)]
        log = (OUT / "service.log").open("w")
        process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | environment)  # noqa: S603
        try:
            yield _wait_until_ready(process, data)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=START_SECONDS)
            log.close()


def _wait_until_ready(process: subprocess.Popen[bytes], data: Path) -> str:
    deadline = time.monotonic() + START_SECONDS
    ready = data / "serve.json"
    while time.monotonic() < deadline and process.poll() is None:
        if ready.exists():
            url: str = json.loads(ready.read_text())["url"]
            return url
        time.sleep(0.1)
    raise SystemExit(f"the service did not start; see {OUT / 'service.log'}")


def segment(client: Client, scan: Shown) -> dict[str, Any]:
    """POST one scan, wait for its verdict, keep mask and preview; the job's fields, or an ``error``."""
    stem = scan.files[0].name.split(".")[0] if len(scan.files) == 1 else scan.files[0].parent.name
    with console.status(scan.title):
        try:
            result = client.segment(scan.files, model=MODEL, timeout=SCAN_SECONDS)
        except (JobFailedError, JobCancelledError, ScanError) as error:
            return failure(scan.title, error)
        for part in (Part.MASK, Part.PREVIEW):
            result.save(OUT, part, name=stem)
    return asdict(result.job)


def _files(path: Path) -> list[Path]:
    return sorted(one for one in path.iterdir() if one.is_file()) if path.is_dir() else [path]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
