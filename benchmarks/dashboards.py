"""Pictures of the dashboards that ship: a real service in a few busy minutes, a real Prometheus, the panels' queries.

    python -m benchmarks.dashboards [--minutes N] [--out DIR]        (`make dashboards`)

Grafana's variables are filled in for so short a time: rates over 15 s, windows of a minute.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import nibabel
import numpy as np
import psutil
from rich.console import Console

from benchmarks.grafana import draw_dashboard
from benchmarks.prometheus import DASHBOARDS, ROOT, Prometheus, running_prometheus
from imaging.nifti import write_nifti
from jobs.blobs import FileContent
from ncagate.demo import MODEL, OUT, serving, shared_scans, template_scans
from pacs.multipart import related

SETTINGS: dict[str, Any] = {
    "NCAGATE_RECONCILE_S": "0.5",
    "NCAGATE_LEASE_S": "5",
    "NCAGATE_WORKERS": "2",
    "NCAGATE_THREADS": "1",
    "NCAGATE_WEBHOOK_HOSTS": "127.0.0.1:9",
}
"""A worker is silent after 9 s; nobody takes what is sent to the webhook."""
SECRET = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
TRICKLE_S = 1.8
BURST = 40

console = Console()


@dataclass
class Ward:
    """Who sends scans and looks at results."""

    client: httpx.Client
    worker: psutil.Process
    scans: Sequence[bytes]
    spiked: bytes
    random: np.random.Generator

    def send(self, scan: bytes | None = None, **fields: str) -> None:
        """One scan, now and then an urgent one, one that is none, or one with a webhook that nobody takes."""
        chance = self.random.random()
        if chance < 0.15:
            fields["priority"] = "urgent"
        if 0.2 < chance < 0.25:
            fields["webhook"] = "http://127.0.0.1:9/hook"
        data = self.random.choice(np.array(self.scans, dtype=object)) if scan is None else scan
        if 0.3 < chance < 0.36:
            data = data[: len(data) // 2]
        seed = str(self.random.integers(1_000_000))
        self.client.post("/segment", files={"scan": data}, data={"model": MODEL, "seed": seed, **fields})

    def store(self, files: Sequence[Path]) -> None:
        """A DICOM series by STOW-RS; no route wants it."""
        kind, body = related([FileContent(one).chunks() for one in files])
        self.client.post("/dicomweb/studies", content=body, headers={"Content-Type": kind})

    def look(self) -> None:
        """Poll as a page does, and follow a link that has gone."""
        jobs = self.client.get("/jobs", params={"limit": "5"}).json()["jobs"]
        for job in jobs[:2]:
            self.client.get(f"/jobs/{job['id']}")
            self.client.get(f"/jobs/{job['id']}/mask")
        if self.random.random() < 0.2:
            self.client.get(f"/jobs/{'0' * 32}")


def main(arguments: Sequence[str]) -> int:
    """Drive, ask, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images")
    chosen = parser.parse_args(arguments)
    OUT.mkdir(exist_ok=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ncagate-dashboards-")))
        ward = stack.enter_context(_ward(folder))
        target = str(ward.client.base_url).removeprefix("http://").rstrip("/")
        prometheus = stack.enter_context(running_prometheus(folder / "prometheus", [target]))
        start = time.time()
        fired = _busy(ward, prometheus, seconds=60 * chosen.minutes)
        end = time.time() - 1.0  # what is not recorded yet is not there
        for dashboard in sorted(DASHBOARDS.glob("*.json")):
            picture = chosen.out / f"dashboard_{dashboard.stem}.png"
            draw_dashboard(dashboard, prometheus, start=start, end=end, picture=picture)
            console.print(f"wrote {picture}")
    console.print(f"alerts that fired: {', '.join(sorted(fired)) or 'none'}")
    return 0


@contextmanager
def _ward(folder: Path) -> Iterator[Ward]:
    (folder / "secret").write_text(SECRET)
    environment = SETTINGS | {"NCAGATE_WEBHOOK_SECRET_FILE": str(folder / "secret")}
    whole, spiked = (scan.files[0] for scan in template_scans())
    data = folder / "data"
    with serving(data=data, **environment) as url, httpx.Client(base_url=url, timeout=60.0) as client:
        (worker,) = (child for child in psutil.process_iter(["environ", "cmdline"]) if _is_worker(child, data))
        yield Ward(client, worker, _variants(whole, folder), spiked.read_bytes(), np.random.default_rng(0))


def _is_worker(process: psutil.Process, data: Path) -> bool:
    """Whether it is the main process of the worker of this service."""
    cmdline, environment = process.info["cmdline"] or [], process.info["environ"] or {}
    ours = environment.get("NCAGATE_DATA") == str(data) and cmdline[-1:] == ["worker"]
    return ours and (process.parent() or process).cmdline()[-1:] != ["worker"]


def _variants(whole: Path, folder: Path) -> list[bytes]:
    """The scan with more and more noise."""
    image = nibabel.nifti1.Nifti1Image.from_filename(whole)
    array, random = np.asarray(image.dataobj, np.float32), np.random.default_rng(0)
    variants = []
    for number, noise in enumerate(np.geomspace(0.02, 0.6, 12)):
        path = folder / f"{number}.nii.gz"
        write_nifti(
            path, (array + noise * array.std() * random.normal(size=array.shape)).astype(np.float32), image.affine
        )
        variants.append(path.read_bytes())
    return variants


def _busy(ward: Ward, prometheus: Prometheus, *, seconds: float) -> set[str]:
    """A few minutes: a trickle, a series, a burst, a process killed in a job, a scanner that spikes, a deaf worker."""
    began, fired = time.monotonic(), set[str]()
    plan = iter(
        [(0.1, "series"), (0.2, "burst"), (0.45, "kill"), (0.5, "spikes"), (0.7, "deaf"), (0.85, "hear"), (2.0, "end")]
    )
    due, event = next(plan)
    spiking = False
    for number in count():
        share = (time.monotonic() - began) / seconds
        if share >= 1.0:
            return fired
        if share >= due:
            console.print(f"{share:4.0%} {event}")
            spiking = event == "spikes"
            _event(ward, event)
            due, event = next(plan)
        ward.send(ward.spiked if spiking and number % 2 else None)
        ward.look()
        fired |= prometheus.firing()
        time.sleep(TRICKLE_S)
    raise AssertionError("it counts for ever")


def _event(ward: Ward, event: str) -> None:
    if event == "series":
        for scan in shared_scans()[1:]:
            ward.store(scan.files)
    elif event == "burst":
        for _ in range(BURST):
            ward.send()
    elif event == "kill":
        for child in ward.worker.children()[:1]:
            ward.send(members="50")
            time.sleep(0.3)
            child.kill()
    elif event == "deaf":
        ward.worker.send_signal(signal.SIGSTOP)
    elif event == "hear":
        ward.worker.send_signal(signal.SIGCONT)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
