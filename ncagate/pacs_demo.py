"""``make pacs-demo``: a real Orthanc and ncagate side by side; a series goes in, SEG and SR come back into its study.

python -m ncagate.pacs_demo [FOLDER]
"""

from __future__ import annotations

import io
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from rich.table import Table

from imaging.dicom_series import read_dicom_series
from imaging.dicom_sr import DICE_HIGH, DICE_LOW, NQM, PREDICTED_DICE, REASON, SCHEME, VERDICT
from imaging.limits import Limits
from imaging.preview import render_preview
from imaging.volume import Volume
from jobs.clients import NOBODY, Scope
from jobs.database import open_database, upgrade
from ncagate.demo import MODEL, OUT, console, serving
from ncagate.orthanc import LOOPBACK, USER, Orthanc, OrthancError, free_ports, program, running_orthanc
from ncagate.settings import Settings
from service.access.keys import KeyRepository

SCAN = Path(__file__).resolve().parents[2] / "shared" / "data" / "dicom" / "hippocampus_crop_1"
RESULTS = {"SEG", "SR"}
WAIT_S = 180.0
POLL_S = 0.5
ROUTING = """\
quiet_s = 3

[[route]]
name = "demo"
model = "{model}"
destinations = ["orthanc"]

[[destination]]
name = "orthanc"
kind = "stow"
url = "{url}"
username = "{user}"
password_file = "{password_file}"
flagged = true
"""


@dataclass(frozen=True)
class Report:
    """What a Structured Report says of the worst structure.

    Attributes:
        figures: value of each figure by its code ("DICE", "NQM", ...).
    """

    verdict: Literal["accept", "flag"]
    reasons: tuple[str, ...]
    figures: dict[str, float]

    @property
    def line(self) -> str:
        """The figures in one line."""
        said = []
        if PREDICTED_DICE.value in self.figures:
            between = [f"{self.figures[one.value]:.2f}" for one in (DICE_LOW, DICE_HIGH) if one.value in self.figures]
            interval = f" ({' to '.join(between)})" if between else ""
            said.append(f"predicted Dice {self.figures[PREDICTED_DICE.value]:.2f}{interval}")
        if NQM.value in self.figures:
            said.append(f"NQM {self.figures[NQM.value]:.3f}")
        return " · ".join(said)


def main(arguments: Sequence[str]) -> int:
    """Run the demonstration; the exit code says whether SEG and SR came back."""
    folder = Path(arguments[0]) if arguments else SCAN
    files = sorted(one for one in folder.iterdir() if one.is_file()) if folder.is_dir() else []
    if not files:
        raise SystemExit(f"there is no DICOM series in {folder}: name a folder, python -m ncagate.pacs_demo FOLDER")
    OUT.mkdir(exist_ok=True)
    try:
        program("storescu")
        return _run(files)
    except OrthancError as error:
        raise SystemExit(str(error)) from None


def _run(files: Sequence[Path]) -> int:
    (port,) = free_ports(1)
    url = f"http://{LOOPBACK}:{port}/dicomweb"
    with (
        tempfile.TemporaryDirectory(prefix="ncagate-pacs-") as name,
        running_orthanc(Path(name), NCAGATE_DICOMWEB=url, NCAGATE_KEY=make_key(Path(name) / "data")) as orthanc,
    ):
        routing = write_routing(Path(name), orthanc)
        with serving(port=port, data=Path(name) / "data", NCAGATE_PACS=str(routing)):
            console.print(f"[bold]ncagate pacs-demo[/]: Orthanc beside ncagate, {len(files)} files by storescu")
            orthanc.store(files)
            study = str(dcmread(files[0], stop_before_pixels=True).StudyInstanceUID)
            series = wait_for_results(orthanc, study)
        console.print(table(series))
        missing = RESULTS - {modality(one) for one in series}
        if missing:
            console.print(f"No {' and no '.join(sorted(missing))} came back; see {OUT / 'service.log'}.")
            return 1
        show(orthanc, series)
    return 0


def make_key(data: Path) -> str:
    """A key with which Orthanc may send, of the service that will have this data folder."""
    settings = Settings(data=data)
    upgrade(settings.database)
    engine = open_database(settings.database)
    try:
        return KeyRepository(engine).create("orthanc", [Scope.SUBMIT], by=NOBODY)[1]
    finally:
        engine.dispose()


def write_routing(folder: Path, orthanc: Orthanc) -> Path:
    """The routing table and the password file that it names."""
    password_file, routing = folder / "orthanc_password", folder / "pacs.toml"
    password_file.touch(mode=0o600)
    password_file.write_text(orthanc.password)
    routing.write_text(
        ROUTING.format(model=MODEL, url=orthanc.dicomweb, user=USER, password_file=password_file), encoding="utf-8"
    )
    return routing


def wait_for_results(orthanc: Orthanc, study: str) -> list[dict[str, Any]]:
    """The study's series as soon as SEG and SR are among them, or those that there are when time is up."""
    deadline = time.monotonic() + WAIT_S
    with console.status("waiting for the results"):
        while True:
            series = orthanc.series(study)
            if {modality(one) for one in series} >= RESULTS or time.monotonic() > deadline:
                return series
            time.sleep(POLL_S)


def modality(series: dict[str, Any]) -> str:
    """The modality of a series of Orthanc's."""
    return str(series["MainDicomTags"].get("Modality", ""))


def table(series: Sequence[dict[str, Any]]) -> Table:
    """The study's series, as a viewer lists them."""
    made = Table("modality", "description", "instances", title="The study in Orthanc", title_justify="left")
    for one in sorted(series, key=lambda one: modality(one) in RESULTS):
        made.add_row(modality(one), one["MainDicomTags"].get("SeriesDescription", ""), str(len(one["Instances"])))
    return made


def show(orthanc: Orthanc, series: Sequence[dict[str, Any]]) -> None:
    """Print the verdict and draw the mask over the scan, both from what Orthanc has."""
    parts = {modality(one): orthanc.files(one) for one in series}
    report = read_report(parts["SR"][0])
    (images,) = (files for kind, files in parts.items() if kind not in RESULTS)
    with tempfile.TemporaryDirectory(prefix="ncagate-pacs-") as name:
        for number, content in enumerate(images):
            (Path(name) / f"{number}.dcm").write_bytes(content)
        volume = read_dicom_series(sorted(Path(name).iterdir()), limits=Limits())
        mask = read_mask(parts["SEG"][0], volume)
    picture = OUT / "pacs_overlay.png"
    picture.write_bytes(
        render_preview(
            volume.array,
            mask,
            np.zeros(mask.shape, np.float32),
            affine=volume.affine,
            caption=["The SEG that Orthanc has, over the series that Orthanc has", report.line, *report.reasons],
            verdict=report.verdict,
        )
    )
    millilitres = float(np.count_nonzero(mask)) * volume.voxel_ml
    console.print(f"\nThe SR says: [bold]{report.verdict}[/]  {report.line}")
    for reason in report.reasons:
        console.print(f"    {reason}")
    console.print(f"The SEG has {millilitres:.2f} ml; its outline is in [bold]{picture.absolute()}[/]")


def read_mask(content: bytes, volume: Volume) -> NDArray[np.bool_]:
    """The segments of a DICOM SEG together, bool (x, y, z) on the grid of the series that it refers to.

    ``volume`` is that series; its files must still be there.
    """
    segmentation = hd.seg.segread(io.BytesIO(content))
    uids = [str(dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in volume.source]
    frames = segmentation.get_pixels_by_source_instance(
        source_sop_instance_uids=uids, combine_segments=True, assert_missing_frames_are_empty=True
    )
    mask: NDArray[np.bool_] = np.asarray(frames).transpose(2, 1, 0) > 0
    return mask


def read_report(content: bytes) -> Report:
    """The verdict of a Structured Report that ncagate wrote: of several structures, that of the worst."""
    groups = [_said(group) for group in _groups(dcmread(io.BytesIO(content)))]
    return min(groups, key=lambda one: (one.verdict == "accept", one.figures.get(PREDICTED_DICE.value, 0.0)))


def _groups(item: Dataset) -> Iterator[Dataset]:
    """The containers that hold a verdict, anywhere below."""
    for child in item.get("ContentSequence", ()):
        if _code(child) == VERDICT.value:
            yield item
        yield from _groups(child)


def _said(group: Dataset) -> Report:
    verdict: Literal["accept", "flag"] = "flag"
    reasons, figures = [], {}
    for item in group.ContentSequence:
        code = _code(item)
        if code == VERDICT.value and item.ConceptCodeSequence[0].CodeValue == "ACCEPT":
            verdict = "accept"
        elif code == REASON.value:
            reasons.append(str(item.ConceptCodeSequence[0].CodeValue))
        elif code and item.ValueType == "NUM":
            figures[code] = float(item.MeasuredValueSequence[0].NumericValue)
    return Report(verdict, tuple(reasons), figures)


def _code(item: Dataset) -> str:
    """The code that names an item, where it is of ncagate's own scheme; else empty."""
    name = item.get("ConceptNameCodeSequence")
    return str(name[0].CodeValue) if name and name[0].CodingSchemeDesignator == SCHEME else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
