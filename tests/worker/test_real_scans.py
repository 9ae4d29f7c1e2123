"""Real scans through the pipeline, with random weights: geometry and refusals, not anatomy."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from highdicom.seg import segread
from nibabel.affines import apply_affine
from nibabel.nifti1 import Nifti1Image
from pydicom import dcmread

from imaging.limits import Limits
from model_store.loaded import LoadedVersion, load_version
from model_store.manifest import Manifest
from model_store.registry import SHIPPED, Registry
from nca.engine import get_engine
from nca.gate import Policy
from worker.pipeline import Options, segment_scan
from worker.record import Origin, Record

SMALL = ((20.0, 80.0),) * 3
"""Field of view in mm of a crop around one hippocampus."""


@pytest.fixture
def version(
    tmp_path: Path, publish_tiny: Callable[..., Manifest], make_manifest: Callable[..., Manifest]
) -> LoadedVersion:
    """A version that expects a small field of view."""
    contract = make_manifest().contract.model_copy(update={"extent_mm": SMALL, "spacing_mm": ((0.5, 1.5),) * 3})
    publish_tiny(tmp_path / "store", contract=contract)
    return load_version(Registry(tmp_path / "store", shipped=None), "tiny")


def run(scan: Path, version: LoadedVersion, folder: Path) -> Record:
    for name in ("out", "work"):
        (folder / name).mkdir()
    return segment_scan(
        [scan],
        version,
        engine=get_engine("torch", threads=1),
        options=Options(policy=Policy(min_dice=0.8, alpha=0.05, rule="nqm"), members=3, seed=0),
        origin=Origin("a job", datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)),
        limits=Limits(),
        out=folder / "out",
        workdir=folder / "work",
    ).record


class TestRealScans:
    def test_a_hippocampus_is_within_the_contract(
        self, shared_data: Path, version: LoadedVersion, tmp_path: Path
    ) -> None:
        scan = sorted((shared_data / "hippocampus" / "images").glob("*.nii.gz"))[0]
        record = run(scan, version, tmp_path)
        assert {reason.code for reason in record.reasons} <= {"nqm_above_threshold", "nqm_undefined", "empty_mask"}
        source, mask = Nifti1Image.from_filename(scan), Nifti1Image.from_filename(tmp_path / "out" / "mask.nii.gz")
        assert mask.shape == source.shape
        np.testing.assert_allclose(mask.affine, source.affine, atol=1e-4)

    def test_a_dicom_series_of_the_same_kind_is_read(
        self, shared_data: Path, version: LoadedVersion, tmp_path: Path
    ) -> None:
        record = run(shared_data / "dicom" / "hippocampus_crop_1", version, tmp_path)
        assert "not_segmented" not in {reason.code for reason in record.reasons}
        assert Nifti1Image.from_filename(tmp_path / "out" / "mask.nii.gz").ndim == 3

    @pytest.mark.parametrize("name", ["hippocampus_crop_1", "hippocampus_crop_2"])
    def test_its_dicom_seg_and_its_nifti_mask_agree_voxel_for_voxel(
        self, shared_data: Path, tmp_path: Path, name: str
    ) -> None:
        record = run(shared_data / "dicom" / name, load_version(Registry(SHIPPED), "hippocampus"), tmp_path)
        assert record.warnings == ()
        nifti = Nifti1Image.from_filename(tmp_path / "out" / "mask.nii.gz")
        labels = np.asarray(nifti.dataobj)
        segmentation = segread(tmp_path / "out" / "segmentation.dcm")
        report = dcmread(tmp_path / "out" / "report.dcm")
        (evidence,) = [
            one
            for series in report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
            for one in series.ReferencedSOPSequence
            if one.ReferencedSOPClassUID == segmentation.SOPClassUID
        ]
        assert evidence.ReferencedSOPInstanceUID == segmentation.SOPInstanceUID
        assert report.SeriesDescription == segmentation.SeriesDescription
        assert segmentation.ContentLabel == {"accept": "ACCEPTED", "flag": "FLAGGED"}[record.verdict]
        box = segmentation.get_volume(combine_segments=True)
        lps_to_ras = np.diag([-1, -1, 1, 1])
        places = apply_affine(lps_to_ras @ box.affine, np.argwhere(box.array))
        voxels = apply_affine(np.linalg.inv(nifti.affine), places)
        assert np.abs(voxels - np.rint(voxels)).max() < 0.01
        found = np.zeros_like(labels)
        found[tuple(np.rint(voxels).astype(int).T)] = 1
        assert found.any()
        np.testing.assert_array_equal(found, labels)

    def test_a_whole_head_is_flagged_in_seconds_and_not_segmented(
        self, shared_data: Path, version: LoadedVersion, tmp_path: Path
    ) -> None:
        record = run(shared_data / "dicom" / "whole_brain_t1post", version, tmp_path)
        assert record.verdict == "flag"
        assert {reason.code for reason in record.reasons} == {
            "extent_out_of_range", "spacing_out_of_range", "not_segmented"
        }  # fmt: skip
        assert (record.nqm, record.predicted_dice, record.volume_ml) == (None, None, 0.0)
        assert record.seconds < 20.0
        mask = Nifti1Image.from_filename(tmp_path / "out" / "mask.nii.gz")
        assert mask.shape == (512, 512, 22)
        assert not np.asarray(mask.dataobj).any()
        assert not (tmp_path / "out" / "segmentation.dcm").exists()
        assert dcmread(tmp_path / "out" / "report.dcm").SeriesDescription.startswith("FLAGGED: ")
        assert any("no DICOM SEG" in warning for warning in record.warnings)
