"""What `make pacs-demo` shows, of results that really lay in Orthanc."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from rich.console import Console

from imaging.dicom_series import read_dicom_series
from imaging.limits import Limits
from imaging.nifti import read_nifti
from ncagate import pacs_demo
from ncagate.demo import OUT, serving
from ncagate.orthanc import Orthanc, free_ports
from ncagate.pacs_demo import read_mask, read_report, show, table

Start = Callable[..., AbstractContextManager[Orthanc]]
JOB_S = 60.0
C_STORE = """
[listen]
host = "127.0.0.1"
port = {port}
calling = ["ORTHANC"]

[[route]]
name = "hippocampus"
sender = "orthanc"
modality = "MR"
model = "hippocampus"
destinations = ["orthanc"]

[[destination]]
name = "orthanc"
kind = "cstore"
host = "127.0.0.1"
port = {archive}
ae_title = "ORTHANC"
"""


@pytest.fixture(scope="module")
def series(shared_data: Path) -> list[Path]:
    return sorted((shared_data / "dicom" / "hippocampus_crop_1").glob("*.dcm"))


@pytest.fixture(scope="module")
def segmented(series: list[Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder of `ncagate segment`'s results, and its record."""
    out = tmp_path_factory.mktemp("segmented")
    command = [sys.executable, "-m", "ncagate.cli", "segment", str(series[0].parent), "--out", str(out)]
    subprocess.run([*command, "--json", str(out / "records.json")], check=True, capture_output=True)
    (record,) = json.loads((out / "records.json").read_text())
    return out, record


class TestReading:
    def test_the_mask_of_the_seg_is_that_of_the_nifti_voxel_for_voxel(
        self, series: list[Path], segmented: tuple[Path, dict[str, Any]]
    ) -> None:
        folder, _ = segmented
        (written,) = folder.glob("*_segmentation.dcm")
        (expected,) = folder.glob("*_mask.nii.gz")
        mask = read_mask(written.read_bytes(), read_dicom_series(series, limits=Limits()))
        assert mask.any()
        np.testing.assert_array_equal(mask, read_nifti(expected, limits=Limits()).array > 0)

    def test_the_report_says_what_the_record_says(self, segmented: tuple[Path, dict[str, Any]]) -> None:
        folder, record = segmented
        (written,) = folder.glob("*_report.dcm")
        report = read_report(written.read_bytes())
        assert (report.verdict, list(report.reasons)) == (record["verdict"], [one["code"] for one in record["reasons"]])
        assert report.figures["DICE"] == pytest.approx(record["predicted_dice"], abs=1e-4)
        assert report.line.startswith(f"predicted Dice {record['predicted_dice']:.2f} (")


class TestShow:
    def test_lists_and_draws_what_orthanc_has(
        self,
        orthanc: Start,
        series: list[Path],
        segmented: tuple[Path, dict[str, Any]],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        folder, record = segmented
        monkeypatch.chdir(tmp_path)
        OUT.mkdir()
        said = Console(record=True, width=120)
        monkeypatch.setattr(pacs_demo, "console", said)
        with orthanc(NCAGATE_MODALITIES="none") as running:
            running.store([*series, *folder.glob("*.dcm")])
            found = running.series()
            said.print(table(found))
            show(running, found)
        text = said.export_text()
        for line in ("MR", "SEG", "SR", "ncagate hippocampus", record["verdict"]):
            assert line in text
        assert f"{record['volume_ml']:.2f} ml" in text
        with Image.open(OUT / "pacs_overlay.png") as picture:
            outline = np.all(np.asarray(picture.convert("RGB")) == (64, 224, 208), axis=-1)
        assert np.count_nonzero(outline) > 500


class TestRoundTrip:
    """Orthanc, ncagate with its real model, and nothing between them."""

    def test_by_stow_rs_as_the_demo_shows_it(
        self, orthanc: Start, series: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        said = Console(record=True, width=120)
        monkeypatch.setattr(pacs_demo, "console", said)
        assert pacs_demo.main([str(series[0].parent)]) == 0
        assert "The SR says: accept" in said.export_text()

    def test_by_c_store_both_ways(
        self, orthanc: Start, series: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        OUT.mkdir()
        (port,) = free_ports(1)
        with orthanc(NCAGATE_KIND="cstore", NCAGATE_DICOM_PORT=str(port)) as running:
            routing = tmp_path / "pacs.toml"
            routing.write_text(C_STORE.format(port=port, archive=running.dicom_port))
            with serving(NCAGATE_PACS=str(routing)) as url, httpx.Client(base_url=url) as client:
                running.store(series)
                found = pacs_demo.wait_for_results(running, str(dcmread(series[0]).StudyInstanceUID))
                (job,) = client.get("/jobs").raise_for_status().json()["jobs"]
                deliveries = _settled_deliveries(client, job["id"])
                mask = client.get(f"/jobs/{job['id']}/mask", headers={"Accept": "application/dicom"}).content
            (segmentation,) = (one for one in found if pacs_demo.modality(one) == "SEG")
            (received,) = running.files(segmentation)
        assert sorted(map(pacs_demo.modality, found)) == ["MR", "SEG", "SR"]
        assert [(one["destination"], one["state"]) for one in deliveries] == [("orthanc", "delivered")]
        sent, kept = dcmread(BytesIO(received)), dcmread(BytesIO(mask))
        assert (sent.SOPInstanceUID, sent.PixelData) == (kept.SOPInstanceUID, kept.PixelData)


def _settled_deliveries(client: httpx.Client, job_id: str) -> list[dict[str, Any]]:
    """Orthanc has the objects a moment before the delivery's row says so."""
    deadline = time.monotonic() + JOB_S
    while True:
        found: list[dict[str, Any]] = client.get(f"/jobs/{job_id}").raise_for_status().json()["deliveries"]
        if all(one["finished"] for one in found) or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


class TestArguments:
    def test_a_folder_without_files_is_refused_in_words(self, tmp_path: Path) -> None:
        with pytest.raises(SystemExit, match="there is no DICOM series"):
            pacs_demo.main([str(tmp_path)])
