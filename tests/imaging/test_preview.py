import io
import tracemalloc
from typing import Any

import numpy as np
import pytest
from nibabel.orientations import apply_orientation, io_orientation, ornt_transform
from PIL import Image

from imaging.preview import BADGE, GAP, HEADER, OUTLINE, PANEL, render_preview

AXES = {
    "RAS": np.diag([1.0, 1.0, 1.0, 1.0]),
    "LPI": np.diag([-1.0, -1.0, -1.0, 1.0]),
    "SLP": np.array([[0, -1.0, 0, 0], [0, 0, -1.0, 0], [1.0, 0, 0, 0], [0, 0, 0, 1.0]]),
}


def scan(shape: tuple[int, int, int] = (30, 40, 20)) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    array = np.random.default_rng(0).normal(100, 20, shape).astype(np.float32)
    mask = np.zeros(shape, bool)
    mask[tuple(slice(n // 4, n // 2 + 1) for n in shape)] = True
    return array, mask, mask * np.float32(0.3)


def render(*scan: np.ndarray, **changes: Any) -> np.ndarray:
    options: dict[str, Any] = {"affine": np.eye(4), "caption": ["tiny 1.0.0"], "verdict": "accept"} | changes
    data = render_preview(*scan, **options)
    assert data.startswith(b"\x89PNG")
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture.convert("RGB"))


def count(picture: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((picture == colour).all(axis=-1).sum())


class TestRenderPreview:
    @pytest.mark.parametrize("shape", [(5, 5, 5), (20, 20, 20), (300, 300, 30), (2, 200, 2)])
    def test_the_size_does_not_depend_on_the_scan(self, shape: tuple[int, int, int]) -> None:
        assert render(*scan(shape)).shape == render(*scan()).shape

    def test_the_masks_outline_is_drawn(self) -> None:
        assert count(render(*scan()), OUTLINE) > 500

    def test_an_empty_mask_has_no_outline(self) -> None:
        array, mask, uncertainty = scan()
        assert count(render(array, mask & False, uncertainty), OUTLINE) == 0

    @pytest.mark.parametrize("verdict", ["accept", "flag"])
    def test_the_verdict_has_its_colour(self, verdict: str) -> None:
        picture = render(*scan(), verdict=verdict)
        assert count(picture, BADGE[verdict]) > 1000
        assert count(picture, BADGE["flag" if verdict == "accept" else "accept"]) == 0

    def test_the_uncertainty_is_seen(self) -> None:
        array, mask, uncertainty = scan()
        assert not np.array_equal(render(array, mask, uncertainty), render(array, mask, uncertainty * 0))

    def test_a_constant_image_is_drawn_too(self) -> None:
        array, mask, uncertainty = scan()
        assert render(array * 0, mask, uncertainty).any()

    @pytest.mark.parametrize("axes", ["LPI", "SLP"])
    def test_the_same_body_gives_the_same_picture_in_any_orientation(self, axes: str) -> None:
        parts = scan()
        to_other = ornt_transform(io_orientation(AXES["RAS"]), io_orientation(AXES[axes]))
        turned = [apply_orientation(part, to_other) for part in parts]
        np.testing.assert_array_equal(render(*turned, affine=AXES[axes]), render(*parts, affine=AXES["RAS"]))

    @pytest.mark.parametrize("axes", AXES)
    def test_right_front_and_top_of_the_body_are_where_the_letters_say(self, axes: str) -> None:
        body = np.zeros((30, 30, 30), np.float32)
        body[22:28, 22:28, 22:28] = 100.0  # to the right, the front and the top of RAS+
        mask = body > 50
        mask[15, 15, 15] = True
        to_other = ornt_transform(io_orientation(AXES["RAS"]), io_orientation(AXES[axes]))
        turned = [apply_orientation(part, to_other) for part in (body, mask, body * 0)]
        picture = render(*turned, affine=AXES[axes])[:, :, 0].astype(float)
        for column in range(3):  # axial R | L, A over P; coronal R | L, S over I; sagittal A | P, S over I
            left = GAP + column * (PANEL + GAP)
            top = GAP + 40 + HEADER
            panel = picture[top : top + PANEL, left : left + PANEL] > 200
            panel[:30], panel[-30:], panel[:, :30], panel[:, -30:] = False, False, False, False  # the letters
            rows, columns = np.nonzero(panel)
            assert columns.max() < PANEL / 2
            assert rows.max() < PANEL / 2

    @pytest.mark.parametrize("axes", AXES)
    def test_a_large_scan_costs_little_memory(self, axes: str) -> None:
        array, mask, uncertainty = scan((256, 256, 160))
        tracemalloc.start()
        try:
            render(array, mask, uncertainty, affine=AXES[axes])
            assert tracemalloc.get_traced_memory()[1] < array.nbytes
        finally:
            tracemalloc.stop()

    def test_thick_slices_are_drawn_in_proportion(self) -> None:
        array, mask, uncertainty = scan((20, 20, 4))
        cube = render(array, mask, uncertainty, affine=np.diag([1.0, 1.0, 5.0, 1.0]))
        flat = render(array, mask, uncertainty)
        black = (0, 0, 0)
        assert count(cube, black) < count(flat, black)

    def test_a_long_caption_is_wrapped_and_bounded(self) -> None:
        short, long = render(*scan()), render(*scan(), caption=["word " * 2000])
        assert long.shape[1] == short.shape[1]
        assert long.shape[0] <= short.shape[0] + 60
