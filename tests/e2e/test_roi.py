"""A whole head, and the hippocampus in it: a region of interest makes it a scan of the kind that the model knows."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Image
from nilearn.datasets import load_mni152_template

from imaging.nifti import write_nifti

ROI = "ras:-45,-47,-31:-9,3,9"
"""Around the left hippocampus of the MNI152 template: 36 x 50 x 40 mm."""
START, STOP = (53, 87, 41), (89, 137, 81)
"""The same on the template's grid, of 1 mm with its first voxel at (-98, -134, -72) mm."""


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The MNI152 template, 197 x 233 x 189 voxels of 1 mm."""
    template = load_mni152_template(resolution=1)
    path = tmp_path_factory.mktemp("head") / "head.nii.gz"
    write_nifti(path, np.asarray(template.dataobj, dtype=np.float32), template.affine)
    return path


@pytest.fixture(scope="module")
def crop(head: Path) -> Path:
    """The region alone, as a file of its own."""
    whole = Nifti1Image.from_filename(head)
    affine = whole.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ START
    path = head.parent / "crop.nii.gz"
    box = tuple(slice(*ends) for ends in zip(START, STOP, strict=True))
    write_nifti(path, np.asarray(whole.dataobj)[box], affine)
    return path


def segmented(scan: Path, *arguments: str) -> tuple[dict[str, Any], Nifti1Image]:
    """The record of `ncagate segment` with the version that ships, and the mask."""
    out = scan.parent / f"out{len(list(scan.parent.iterdir()))}"
    command = [sys.executable, "-m", "ncagate.cli", "segment", str(scan), "--out", str(out), *arguments]
    subprocess.run([*command, "--json", str(out / "records.json")], check=True, capture_output=True)
    (record,) = json.loads((out / "records.json").read_text())
    (mask,) = out.glob("*_mask.nii.gz")
    return record, Nifti1Image.from_filename(mask)


class TestWholeHead:
    def test_without_a_region_it_is_flagged(self, head: Path) -> None:
        record, _ = segmented(head)
        assert (record["verdict"], record["roi"]) == ("flag", None)
        assert {"extent_out_of_range", "not_segmented"} <= {one["code"] for one in record["reasons"]}

    @pytest.mark.parametrize(
        "roi", [ROI, "lps:9,-3,-31:45,47,9", "voxel:53,87,41:89,137,81", "centre:-45,-29,-53:-9,21,-13"]
    )
    def test_with_a_region_its_hippocampus_is_accepted_and_is_that_of_the_cropped_file(
        self, head: Path, crop: Path, roi: str
    ) -> None:
        alone, expected = segmented(crop)
        record, found = segmented(head, "--roi", roi)
        assert (record["verdict"], alone["verdict"]) == ("accept", "accept")
        assert record["roi"] == roi
        for figure in ("nqm", "predicted_dice", "volume_ml"):
            assert record[figure] == alone[figure]
        whole = Nifti1Image.from_filename(head)
        assert found.shape == whole.shape
        np.testing.assert_array_equal(found.affine, whole.affine)
        pasted: np.ndarray = np.zeros(whole.shape, np.uint8)
        pasted[tuple(slice(*ends) for ends in zip(START, STOP, strict=True))] = np.asarray(expected.dataobj)
        np.testing.assert_array_equal(np.asarray(found.dataobj), pasted)

    def test_a_region_that_cuts_the_hippocampus_is_flagged(self, head: Path) -> None:
        record, mask = segmented(head, "--roi", "ras:-45,-47,-31:-9,-17,9")
        assert np.asarray(mask.dataobj).any()
        assert record["verdict"] == "flag"
        assert "structure_cut_off" in {one["code"] for one in record["reasons"]}
