"""A real scan through the page: sent, seen with its mask, decided upon; gateway, worker and browser are real."""

from __future__ import annotations

import gzip
import io
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page

from imaging.nifti import write_nifti
from ncagate.demo import spiked
from tests.console.conftest import Open
from tests.e2e.conftest import Stack

DRAWN_S = 30.0
READY = "canvas[data-ready=true]"


@pytest.fixture(scope="module")
def flagged_scan(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real scan with a spike in its k-space."""
    image: Any = nibabel.load(shared_data / "hippocampus" / "images" / "hippocampus_001.nii.gz")
    path = tmp_path_factory.mktemp("scans") / "spiked.nii.gz"
    write_nifti(path, spiked(np.asarray(image.dataobj, dtype=np.float32)), image.affine)
    return path


def send(page: Page, files: list[Path]) -> str:
    """Choose files as a person does; the identifier of the job whose page comes up, once its scan is to be seen."""
    page.locator("input[type=file]").set_input_files(files)
    page.get_by_label("Model").select_option("hippocampus")
    page.get_by_role("button", name="Send").click()
    page.wait_for_url(re.compile(r"#/jobs/[0-9a-f]{32}$"))
    page.wait_for_selector(READY)
    return page.url.rsplit("/", 1)[1]


def mask_pixels(page: Page) -> int:
    """Pixels of the viewer in the colour of the mask's outline."""
    picture = np.asarray(Image.open(io.BytesIO(page.locator("canvas").screenshot())).convert("RGB")).astype(int)
    return int(((picture[..., 0] < 110) & (picture[..., 1] > 170) & (picture[..., 2] > 150)).sum())


def becomes(page: Page, wanted: Callable[[int], bool]) -> bool:
    """Whether the viewer shows so much of the mask within a while: it draws when the browser lets it."""
    deadline = time.monotonic() + DRAWN_S
    while not (there := wanted(mask_pixels(page))) and time.monotonic() < deadline:
        time.sleep(0.1)
    return there


def mask_voxels(stack: Stack, job: str) -> int:
    image: Any = nibabel.Nifti1Image.from_bytes(gzip.decompress(stack.mask(f"/jobs/{job}")))
    return int(np.count_nonzero(np.asarray(image.dataobj)))


class TestJourney:
    def test_a_flagged_scan_is_sent_seen_and_confirmed(self, stack: Stack, visit: Open, flagged_scan: Path) -> None:
        with visit(stack.status()["url"]) as page:
            job = send(page, [flagged_scan])
            known = stack.job(f"/jobs/{job}")
            assert known["verdict"] == "flag"
            assert page.locator("h1").inner_text().strip() == "Flag"
            for reason in known["reasons"]:
                assert reason["detail"] in page.locator(".why").inner_text()

            assert page.get_attribute(READY, "data-mask-voxels") == str(mask_voxels(stack, job))
            assert becomes(page, lambda pixels: pixels > 300)
            page.keyboard.press("m")
            assert becomes(page, lambda pixels: pixels < 30)

            page.wait_for_selector("svg.chart circle.here")
            page.get_by_label("Your name or initials").fill("AB")
            page.get_by_label("Comment", exact=True).fill("the outline holds")
            page.get_by_role("button", name="Confirm").click()
            page.wait_for_selector("ol.reviews li")
            (review,) = stack.client.get(f"/jobs/{job}/reviews").json()["reviews"]
            assert (review["decision"], review["reviewer"], review["comment"]) == ("confirm", "AB", "the outline holds")

            page.keyboard.press("Escape")
            page.locator("h1").click()
            page.keyboard.press("Escape")
            page.wait_for_selector("table.jobs")
            assert "Confirmed" in page.locator("tr", has_text=job[:8]).inner_text()

    def test_a_dicom_series_is_shown_on_the_grid_of_its_mask(
        self, stack: Stack, visit: Open, shared_data: Path
    ) -> None:
        with visit(stack.status()["url"]) as page:
            job = send(page, sorted((shared_data / "dicom" / "hippocampus_crop_1").iterdir()))
            assert page.get_attribute(READY, "data-mask-voxels") == str(mask_voxels(stack, job))
            scan, mask = (
                nibabel.Nifti1Image.from_bytes(gzip.decompress(stack.client.get(f"/jobs/{job}/{name}").content))
                for name in ("scan", "mask")
            )
            assert scan.shape == mask.shape
            assert np.allclose(scan.affine, mask.affine)
