"""The version of several segments that ships: the anterior and the posterior hippocampus, each with a verdict."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Image

from model_store.loaded import LoadedVersion, load_version
from model_store.registry import SHIPPED, Registry
from nca.gate import Policy
from nca.quality import dice

MODEL = "hippocampus-parts"
PARTS = ("anterior hippocampus", "posterior hippocampus")
SCANS = 4
"""Validation scans that are looked at; the training job looked at all of them."""


@pytest.fixture(scope="module")
def version() -> LoadedVersion:
    return load_version(Registry(SHIPPED, shipped=None), MODEL)


@pytest.fixture(scope="module")
def outcome(version: LoadedVersion, shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Records and masks of `ncagate segment` on validation scans."""
    folder = tmp_path_factory.mktemp("parts")
    names = version.manifest.validation_scans[:SCANS]
    scans = [str(shared_data / "hippocampus" / "images" / name) for name in names]
    command = [sys.executable, "-m", "ncagate.cli", "segment", *scans, "--model", MODEL, "--out", str(folder)]
    result = subprocess.run([*command, "--json", str(folder / "records.json")], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    masks = {}
    for name in names:
        mask = Nifti1Image.from_filename(folder / f"{name.removesuffix('.nii.gz')}_mask.nii.gz")
        label = Nifti1Image.from_filename(shared_data / "hippocampus" / "labels" / name)
        masks[name] = np.asarray(mask.dataobj), np.asarray(label.dataobj)
    records = {Path(record["scan"]).name: record for record in json.loads((folder / "records.json").read_text())}
    return {"masks": masks, "records": records}


class TestShippedVersion:
    def test_judges_both_parts_and_their_union(self, version: LoadedVersion) -> None:
        assert version.manifest.structures == (*PARTS, "union")
        assert version.manifest.licence == "CC-BY-SA-4.0"
        assert version.manifest.parameters <= 12_480
        seen = {*version.manifest.training.training_scans, *version.manifest.calibration.scans}
        assert not seen & set(version.manifest.validation_scans)

    @pytest.mark.parametrize("structure", [*PARTS, "union"])
    def test_passed_its_mark_when_it_was_trained(self, version: LoadedVersion, structure: str) -> None:
        for part in ("cross_validation", "validation"):
            assert version.manifest.metrics[part][structure]["clean"]["dice_mean"] >= 0.85

    def test_its_gates_keep_the_risk_they_state(self, version: LoadedVersion) -> None:
        calibration = version.manifest.calibration
        policy = Policy(calibration.min_dice, calibration.alpha)
        for structure, gate in zip(version.manifest.structures, version.gates, strict=True):
            assert gate.required_dice(policy) is not None, structure
            risk = version.manifest.metrics["cross_validation"][structure]["all"]["risk"]
            assert risk is not None
            assert risk <= calibration.alpha


class TestSegment:
    def test_finds_each_part_on_scans_it_was_not_trained_on(self, outcome: dict[str, Any]) -> None:
        for label in (1, 2):
            dices = [dice(mask == label, truth == label) for mask, truth in outcome["masks"].values()]
            assert np.mean(dices) >= 0.82, dices

    def test_says_of_each_part_what_it_says_of_a_scan(self, outcome: dict[str, Any]) -> None:
        for record in outcome["records"].values():
            first, second, union = record["segments"]
            assert (first["name"], second["name"], union["name"]) == (*PARTS, "union")
            assert (first["label"], second["label"], union["label"]) == (1, 2, None)
            assert first["volume_ml"] + second["volume_ml"] == pytest.approx(union["volume_ml"])
            verdicts = {one["verdict"] for one in record["segments"]}
            assert record["verdict"] == ("accept" if verdicts == {"accept"} else "flag")
            assert record["predicted_dice"] in [one["predicted_dice"] for one in record["segments"]]
