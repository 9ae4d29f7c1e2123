"""The version that ships: does it find the hippocampus, and does its gate hold?"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Image

from imaging.limits import Limits
from imaging.nifti import read_nifti
from model_store.loaded import LoadedVersion, load_version, prepare
from model_store.registry import SHIPPED, Registry
from nca.engine import get_engine
from nca.ensemble import predict
from nca.gate import Policy
from nca.quality import dice
from training.foreign import judge_foreign

SCANS = 6
"""Validation scans that are looked at; the training job looked at all of them."""


@pytest.fixture(scope="module")
def version() -> LoadedVersion:
    return load_version(Registry(SHIPPED, shipped=None), "hippocampus")


@pytest.fixture(scope="module")
def outcome(version: LoadedVersion, shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """`ncagate segment` on validation scans, a DICOM series of the same kind and the whole head."""
    folder = tmp_path_factory.mktemp("hippocampus")
    names = version.manifest.validation_scans[:SCANS]
    scans = [shared_data / "hippocampus" / "images" / name for name in names]
    scans += [shared_data / "dicom" / name for name in ("hippocampus_crop_1", "whole_brain_t1post")]
    command = [sys.executable, "-m", "ncagate.cli", "segment", *map(str, scans), "--model", "hippocampus"]
    result = subprocess.run(
        [*command, "--out", str(folder), "--json", str(folder / "records.json")], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    records = {Path(record["scan"]).name: record for record in json.loads((folder / "records.json").read_text())}
    return {"folder": folder, "records": records, "names": names}


class TestShippedVersion:
    def test_says_where_it_comes_from(self, version: LoadedVersion) -> None:
        manifest = version.manifest
        assert manifest.licence == "CC-BY-SA-4.0"
        assert "Decathlon" in manifest.attribution
        assert manifest.parameters == 11_136
        seen = {*manifest.training.training_scans, *manifest.calibration.scans}
        assert manifest.validation_scans
        assert not seen & set(manifest.validation_scans)

    def test_passed_its_mark_when_it_was_trained(self, version: LoadedVersion) -> None:
        (structure,) = version.manifest.structures
        metrics, held_out = version.manifest.metrics, version.manifest.training.folds
        crossed, validation = (metrics[part][structure]["clean"] for part in ("cross_validation", "validation"))
        assert crossed["outcomes"] == sum(len(fold) for fold in held_out)
        assert validation["outcomes"] == len(version.manifest.validation_scans)
        assert crossed["dice_mean"] >= 0.85
        assert validation["dice_mean"] >= 0.85

    def test_its_gate_keeps_the_risk_it_states(self, version: LoadedVersion) -> None:
        (structure,) = version.manifest.structures
        (gate,) = version.gates
        calibration = version.manifest.calibration
        assert gate.required_dice(Policy(calibration.min_dice, calibration.alpha)) is not None
        risk = version.manifest.metrics["cross_validation"][structure]["all"]["risk"]
        assert risk is not None
        assert risk <= calibration.alpha

    def test_finds_the_hippocampus_on_scans_it_was_not_trained_on(
        self, outcome: dict[str, Any], shared_data: Path
    ) -> None:
        dices = {}
        for name in outcome["names"]:
            mask = Nifti1Image.from_filename(outcome["folder"] / f"{name.removesuffix('.nii.gz')}_mask.nii.gz")
            truth = Nifti1Image.from_filename(shared_data / "hippocampus" / "labels" / name)
            dices[name] = dice(np.asarray(mask.dataobj) > 0, np.asarray(truth.dataobj) > 0)
        assert np.mean(list(dices.values())) >= 0.85, dices

    def test_predicts_a_dice_near_the_true_one(self, outcome: dict[str, Any], shared_data: Path) -> None:
        for name in outcome["names"]:
            record = outcome["records"][name]
            assert record["predicted_dice"] == pytest.approx(0.9, abs=0.1)
            low, high = record["dice_interval"]
            assert 0.0 <= low < high <= 1.0

    def test_a_dicom_series_of_the_same_kind_is_segmented(self, outcome: dict[str, Any]) -> None:
        record = outcome["records"]["hippocampus_crop_1"]
        assert 1.0 < record["volume_ml"] < 6.0

    def test_a_whole_head_is_never_accepted(self, outcome: dict[str, Any]) -> None:
        record = outcome["records"]["whole_brain_t1post"]
        assert record["verdict"] == "flag"
        assert "extent_out_of_range" in {reason["code"] for reason in record["reasons"]}


class TestScansOfOtherKinds:
    def test_none_is_accepted_whole_or_in_crops_of_the_right_size(
        self, version: LoadedVersion, shared_data: Path, tmp_path: Path
    ) -> None:
        for name in ("prostate_t2_1", "prostate_t2_sagittal", "whole_brain_t1post", "dcmqi_seg"):
            (tmp_path / name).symlink_to(shared_data / "dicom" / name)
        rows = judge_foreign(version, tmp_path, Policy(0.8, 0.05))
        assert len(rows) >= 7
        assert {row.scan: row.accepted for row in rows if row.accepted} == {}
        assert all(sum(row.reasons.values()) >= row.judged for row in rows)


class TestEngines:
    def test_native_and_torch_give_the_same_mask_on_every_validation_scan(
        self, version: LoadedVersion, shared_data: Path
    ) -> None:
        """With two members of ten, for the time torch takes; the masks of fewer members are the rougher ones."""
        images = shared_data / "hippocampus" / "images"
        agreement = {}
        for name in version.manifest.validation_scans:
            scan = prepare(read_nifti(images / name, limits=Limits()), version.manifest.preprocessing)
            first, second = (
                predict(get_engine(engine), version.network, scan.image, seed=0, members=2)[0]
                for engine in ("native", "torch")
            )
            agreement[name] = dice(first.mask, second.mask)
            np.testing.assert_allclose(first.mean, second.mean, atol=1e-4)
        assert len(agreement) >= 30
        assert min(agreement.values()) >= 0.9999, agreement

    def test_low_precision_is_measured_in_the_manifest(self, version: LoadedVersion) -> None:
        found = version.manifest.low_precision
        assert found is not None
        assert found.scans == len(version.manifest.validation_scans)
        assert version.manifest.proves("native-bf16") == (found.dice_mean >= 0.999 and found.verdicts_changed == 0)
