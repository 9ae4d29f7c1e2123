"""A region of interest through the whole pipeline: looked at as if it had come alone, written on the whole grid."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from nibabel.nifti1 import Nifti1Image
from PIL import Image

from imaging.errors import RoiOutsideError
from imaging.limits import Limits
from imaging.nifti import write_nifti
from imaging.roi import CUT_TO_SCAN, Roi
from model_store.loaded import LoadedVersion, load_version
from model_store.manifest import Manifest
from model_store.registry import Registry
from nca.engine import get_engine
from nca.gate import Policy
from worker.pipeline import CUT_OFF, Options, segment_scan
from worker.record import Origin, Record

OPTIONS = Options(Policy(0.05, 0.05), members=10, seed=0)
ROI = "voxel:2,3,1:18,20,17"
BOX = np.s_[2:18, 3:20, 1:17]
AFFINES = {"RAS": np.eye(4), "anisotropic LPS": np.diag([-1.0, -1.0, 2.5, 1.0])}
Publish = Callable[..., Manifest]
ScanFile = Callable[..., Path]
Segment = Callable[..., tuple[Record, dict[str, Nifti1Image]]]


@pytest.fixture
def version(tmp_path: Path, publish_tiny: Publish) -> LoadedVersion:
    publish_tiny(tmp_path / "store")
    return load_version(Registry(tmp_path / "store", shipped=None), "tiny")


@pytest.fixture
def segment(tmp_path: Path, version: LoadedVersion) -> Segment:
    """Run the pipeline into a folder of its own: the record, and the images that it wrote by their names."""

    def run(
        *paths: Path, roi: str | None = None, loaded: LoadedVersion = version
    ) -> tuple[Record, dict[str, Nifti1Image]]:
        out, work = (tmp_path / f"{name}{len(list(tmp_path.iterdir()))}" for name in ("out", "work"))
        out.mkdir()
        work.mkdir()
        outcome = segment_scan(
            paths,
            loaded,
            engine=get_engine("torch", threads=1),
            options=replace(OPTIONS, roi=None if roi is None else Roi.parse(roi)),
            origin=Origin("a job", datetime(2026, 1, 1, tzinfo=UTC)),
            limits=Limits(),
            out=out,
            workdir=work,
        )
        return outcome.record, {one.name: Nifti1Image.from_filename(one) for one in out.glob("*.nii.gz")}

    return run


def voxels(image: Nifti1Image) -> np.ndarray:
    return np.asarray(image.dataobj)


class TestRegionOfInterest:
    @pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
    def test_gives_what_the_cropped_file_gives_on_the_whole_grid(
        self, segment: Segment, scan_file: ScanFile, tmp_path: Path, affine: np.ndarray
    ) -> None:
        scan = scan_file(affine=affine)
        source = Nifti1Image.from_filename(scan)
        moved = affine.copy()
        moved[:3, 3] += affine[:3, :3] @ (2, 3, 1)
        cropped = tmp_path / "cropped.nii.gz"
        write_nifti(cropped, voxels(source)[BOX], moved)
        alone, expected = segment(cropped)
        record, found = segment(scan, roi=ROI)
        for name in ("mask.nii.gz", "uncertainty.nii.gz"):
            assert found[name].shape == source.shape
            np.testing.assert_allclose(found[name].affine, affine, atol=1e-6)
            np.testing.assert_array_equal(voxels(found[name])[BOX], voxels(expected[name]))
            outside = voxels(found[name]).copy()
            outside[BOX] = 0
            assert not outside.any()
        assert voxels(found["mask.nii.gz"]).any()
        for figure in ("verdict", "reasons", "nqm", "predicted_dice", "pairwise_dice", "volume_ml"):
            assert getattr(record, figure) == getattr(alone, figure)

    def test_the_contract_is_that_of_the_region_and_not_of_the_whole(
        self, segment: Segment, scan_file: ScanFile, tmp_path: Path, publish_tiny: Publish,
        make_manifest: Callable[..., Manifest],
    ) -> None:  # fmt: skip
        contract = make_manifest().contract.model_copy(update={"extent_mm": ((5.0, 18.0),) * 3})
        publish_tiny(tmp_path / "narrow", contract=contract)
        loaded = load_version(Registry(tmp_path / "narrow", shipped=None), "tiny")
        scan = scan_file()
        whole, _ = segment(scan, loaded=loaded)
        part, _ = segment(scan, loaded=loaded, roi=ROI)
        assert [reason.code for reason in whole.reasons] == ["extent_out_of_range"]
        assert (part.verdict, part.reasons) == ("accept", ())

    def test_the_record_says_where_it_looked(self, segment: Segment, scan_file: ScanFile) -> None:
        scan = scan_file()
        assert segment(scan)[0].roi is None
        assert segment(scan, roi="voxel:2.0,3,1:18,20,17")[0].roi == ROI

    def test_a_mask_that_touches_the_regions_edge_inside_of_the_scan_is_told(
        self, segment: Segment, scan_file: ScanFile
    ) -> None:
        scan = scan_file()
        _, whole = segment(scan)
        record, found = segment(scan, roi=ROI)
        inner = voxels(found["mask.nii.gz"])[BOX].copy()
        touches = inner.any() and (inner.sum() > inner[1:-1, 1:-1, 1:-1].sum())
        assert (CUT_OFF in record.warnings) == touches
        record, found = segment(scan, roi="voxel:0,0,0:20,24,18")
        assert CUT_OFF not in record.warnings
        np.testing.assert_array_equal(voxels(found["mask.nii.gz"]), voxels(whole["mask.nii.gz"]))

    def test_a_region_that_reaches_beyond_the_scan_is_told(self, segment: Segment, scan_file: ScanFile) -> None:
        record, _ = segment(scan_file(), roi="voxel:2,3,1:99,20,17")
        assert CUT_TO_SCAN in record.warnings

    def test_a_region_beside_the_scan_fails_and_writes_nothing(
        self, segment: Segment, scan_file: ScanFile, tmp_path: Path
    ) -> None:
        with pytest.raises(RoiOutsideError):
            segment(scan_file(), roi="ras:500,500,500:600,600,600")
        assert not list(tmp_path.rglob("mask.nii.gz"))

    def test_the_preview_shows_the_region_and_a_margin_and_not_the_whole_scan(
        self, segment: Segment, tmp_path: Path
    ) -> None:
        scan, bright = tmp_path / "large.nii.gz", np.full((60, 60, 60), 100, np.float32)
        bright[40:] = 200  # half of the region
        bright[:20] = 1000  # far from it: were this shown, all of the region would be dark beside it
        write_nifti(scan, bright, np.eye(4))
        segment(scan, roi="voxel:32,32,32:48,48,48")
        (written,) = tmp_path.glob("out*/preview.png")
        with Image.open(written) as picture:
            axial = np.asarray(picture.convert("L"))[80:375, 14:310]
        assert np.count_nonzero(axial > 128) > 0.3 * axial.size


class TestDicom:
    def test_seg_lies_on_the_whole_series_and_refers_to_all_its_images(
        self, segment: Segment, shared_data: Path, tmp_path: Path
    ) -> None:
        series = sorted((shared_data / "dicom" / "hippocampus_crop_1").glob("*.dcm"))
        record, found = segment(*series, roi="voxel:4,5,6:30,40,28")
        (written,) = tmp_path.glob("out*/segmentation.dcm")
        segmentation: Any = pydicom.dcmread(written)
        images = [pydicom.dcmread(path, stop_before_pixels=True) for path in series]
        mask = voxels(found["mask.nii.gz"])
        assert mask.shape == (images[0].Columns, images[0].Rows, len(series))
        assert (segmentation.Rows, segmentation.Columns) == (images[0].Rows, images[0].Columns)
        assert int(np.count_nonzero(segmentation.pixel_array)) == int(np.count_nonzero(mask)) > 0
        (referenced,) = segmentation.ReferencedSeriesSequence
        uids = {one.ReferencedSOPInstanceUID for one in referenced.ReferencedInstanceSequence}
        assert uids == {image.SOPInstanceUID for image in images}
        assert not any("DICOM" in warning for warning in record.warnings)
