"""The way of a scan through the running service."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from nibabel.nifti1 import Nifti1Image
from pydicom import dcmread

from model_store.manifest import Manifest

RESULT = {
    "verdict", "reasons", "rule", "nqm", "predicted_dice", "dice_interval", "required_dice", "pairwise_dice",
    "min_dice", "alpha", "nqm_threshold", "volume_ml", "members", "model", "version", "seed", "engine", "seconds",
    "roi", "stage_seconds", "warnings", "segments",
}  # fmt: skip


class TestSegment:
    def test_a_scan_becomes_a_mask_on_its_own_grid(self, stack: Any, scan: Path, tmp_path: Path) -> None:
        location = stack.submit(scan)
        job = stack.finished(location)
        assert job["state"] == "succeeded", job
        assert job.keys() >= RESULT
        assert job["verdict"] in ("accept", "flag")
        assert (job["verdict"] == "accept") == (job["reasons"] == [])
        assert list(job["stage_seconds"]) == ["read", "prepare", "segment", "judge", "write"]
        path = tmp_path / "mask.nii.gz"
        path.write_bytes(stack.mask(location))
        mask, source = Nifti1Image.from_filename(path), Nifti1Image.from_filename(scan)
        assert mask.shape == source.shape
        np.testing.assert_allclose(mask.affine, source.affine, atol=1e-6)
        assert set(np.unique(np.asarray(mask.dataobj))) <= {0, 1}

    def test_uncertainty_and_preview_are_there_too(self, stack: Any, scan: Path) -> None:
        location = stack.submit(scan)
        stack.finished(location)
        uncertainty = stack.client.get(f"{location}/uncertainty").raise_for_status()
        assert gzip.decompress(uncertainty.content)[344:347] == b"n+1"
        preview = stack.client.get(f"{location}/preview").raise_for_status()
        assert preview.content.startswith(b"\x89PNG")

    def test_a_series_sent_as_dicom_comes_back_as_dicom(self, stack: Any, shared_data: Path) -> None:
        slices = sorted((shared_data / "dicom" / "hippocampus_crop_1").rglob("*.dcm"))
        files = [("scan", (one.name, one.read_bytes())) for one in slices]
        answer = stack.client.post(
            "/segment", files=files, data={"model": "hippocampus"}, headers={"Accept": "application/dicom"}, timeout=120
        ).raise_for_status()
        assert answer.headers["Content-Type"] == "application/dicom"
        segmentation = dcmread(BytesIO(answer.content))
        assert segmentation.Modality == "SEG"
        assert segmentation.StudyInstanceUID == dcmread(slices[0]).StudyInstanceUID
        mark = {"accept": "ACCEPTED", "flag": "FLAGGED"}[answer.headers["NCAgate-Verdict"]]
        assert segmentation.SeriesDescription.startswith(mark)
        again = stack.client.get(f"{answer.headers['Location']}/mask", headers={"Accept": "application/dicom"})
        assert again.content == answer.content

    def test_the_same_scan_twice_gives_the_same_bytes(self, stack: Any, scan: Path) -> None:
        locations = [stack.submit(scan, seed="7") for _ in range(2)]
        assert [stack.finished(one)["state"] for one in locations] == ["succeeded"] * 2
        first, second = (stack.mask(one) for one in locations)
        assert first == second

    def test_another_seed_gives_another_ensemble(self, stack: Any, scan: Path) -> None:
        nqms = [stack.segment(scan, seed=seed)["nqm"] for seed in ("1", "2")]
        assert nqms[0] != nqms[1]

    def test_options_reach_the_worker(self, stack: Any, scan: Path) -> None:
        job = stack.segment(scan, members="3", seed="5", min_dice="0.6", alpha="0.2", rule="nqm")
        assert (job["members"], job["seed"], job["min_dice"]) == (3, 5, 0.6)
        assert (job["alpha"], job["rule"], job["dice_interval"]) == (0.2, "nqm", None)

    def test_waiting_gives_the_result_in_the_same_answer(self, stack: Any, scan: Path) -> None:
        answer = _post(stack, scan, Prefer="wait=50")
        assert answer.status_code == 200
        assert answer.json()["state"] == "succeeded"

    def test_the_mask_itself_with_the_verdict_in_headers(self, stack: Any, scan: Path) -> None:
        answer = _post(stack, scan, Accept="application/gzip")
        assert answer.status_code == 200
        assert answer.headers["ncagate-verdict"] in ("accept", "flag")
        assert gzip.decompress(answer.content)[344:347] == b"n+1"


class TestVersions:
    def test_one_published_while_the_service_runs_is_used_at_once(
        self, stack: Any, scan: Path, publish_tiny: Callable[..., Manifest]
    ) -> None:
        assert stack.segment(scan)["version"] == "1.0.0"
        worker = stack.worker_child().pid
        publish_tiny(stack.data / "models", version="2.0.0", seed=1, created=datetime(2026, 2, 2, tzinfo=UTC))
        job = stack.segment(scan)
        assert (job["state"], job["version"]) == ("succeeded", "2.0.0")
        assert stack.segment(scan, version="1.0.0")["version"] == "1.0.0"
        assert stack.worker_child().pid == worker

    def test_one_damaged_after_submission_fails_the_job_and_no_other(
        self, stack: Any, scan: Path, large_scan: Path, publish_tiny: Callable[..., Manifest]
    ) -> None:
        publish_tiny(stack.data / "models", name="doomed")
        ahead = stack.submit(large_scan, model="slow", members="4")
        waiting = stack.submit(scan, model="doomed")
        weights = stack.data / "models" / "doomed" / "1.0.0" / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1])
        stack.client.delete(ahead)
        job = stack.finished(waiting)
        assert (job["state"], job["error"]["code"]) == ("failed", "version_corrupt")
        assert stack.segment(scan, version="1.0.0")["state"] == "succeeded"


class TestCancel:
    def test_reaches_a_running_job(self, stack: Any, large_scan: Path, scan: Path) -> None:
        location = stack.submit(large_scan, model="slow", members="50")
        stack.under_way(location)
        stack.client.delete(location).raise_for_status()
        job = stack.finished(location)
        assert job["state"] == "cancelled"
        assert stack.client.get(f"{location}/mask").status_code == 409
        assert stack.segment(scan)["state"] == "succeeded"

    def test_a_waiting_job_is_never_started(self, stack: Any, large_scan: Path, scan: Path) -> None:
        ahead = stack.submit(large_scan, model="slow", members="50")
        stack.under_way(ahead)
        waiting = stack.submit(scan)
        stack.client.delete(waiting).raise_for_status()
        stack.client.delete(ahead).raise_for_status()
        stack.finished(ahead)
        assert stack.segment(scan)["state"] == "succeeded"
        job = stack.job(waiting)
        assert (job["state"], job["attempt"]) == ("cancelled", 0)


def _post(stack: Any, scan: Path, **headers: str) -> httpx.Response:
    answer: httpx.Response = stack.client.post(
        "/segment", files={"scan": scan.read_bytes()}, data={"model": "tiny"}, headers=headers, timeout=60.0
    )
    return answer
