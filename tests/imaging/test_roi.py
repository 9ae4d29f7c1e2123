import itertools
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imaging.errors import RoiInvalidError, RoiOutsideError, RoiTooThinError
from imaging.grid import to_model_grid
from imaging.roi import CUT_TO_SCAN, SPACES, Region, Roi, locate
from imaging.volume import Volume

SHAPE = (20, 30, 25)
ORIGIN = (3.0, -7.0, 11.0)


def affine_of(*columns: tuple[float, float, float]) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = np.array(columns).T
    affine[:3, 3] = ORIGIN
    return affine


ANGLE = np.deg2rad(20)
AXIAL = affine_of((-1.0, 0, 0), (0, -1.0, 0), (0, 0, 3.0))
"""As an axial DICOM series has it: x to the left, y to the back, z up, thick slices."""
SAGITTAL = affine_of((0, -0.5, 0), (0, 0, -0.5), (-2.0, 0, 0))
FLIPPED = affine_of((1.5, 0, 0), (0, -1.0, 0), (0, 0, -2.0))
OBLIQUE = affine_of((np.cos(ANGLE), np.sin(ANGLE), 0), (-np.sin(ANGLE), np.cos(ANGLE), 0), (0, 0, 2.0))
GRIDS = {"identity": affine_of((1.0, 0, 0), (0, 1.0, 0), (0, 0, 1.0)), "axial": AXIAL, "sagittal": SAGITTAL,
         "flipped": FLIPPED, "oblique": OBLIQUE}  # fmt: skip


def scan(affine: np.ndarray, shape: tuple[int, int, int] = SHAPE, **rest: Any) -> Volume:
    return Volume(np.arange(np.prod(shape), dtype=np.float32).reshape(shape), affine, **rest)


def centres(affine: np.ndarray, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """Millimetres (x, y, z, 3) of every voxel."""
    millimetres: np.ndarray = np.moveaxis(np.indices(shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3]
    return millimetres


def inside(volume: Volume, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Whether each voxel's centre lies strictly in a box of millimetres."""
    places = centres(volume.affine, volume.array.shape)
    strictly: np.ndarray = np.all((places > low) & (places < high), axis=-1)
    return strictly


def text(space: str, low: np.ndarray, high: np.ndarray) -> str:
    return ":".join([space, *(",".join(f"{value:.6f}" for value in corner) for corner in (low, high))])


def taken(region: Region) -> np.ndarray:
    """Bool (x, y, z) on the whole grid: what the region holds."""
    return region.paste(np.ones([b - a for a, b in zip(region.start, region.stop, strict=True)], bool))


class TestGrammar:
    @pytest.mark.parametrize("space", SPACES)
    def test_what_is_written_is_read(self, space: str) -> None:
        roi = Roi.parse(f"{space}:1,2,3:40,50,60")
        assert (roi.space, roi.low, roi.high) == (space, (1.0, 2.0, 3.0), (40.0, 50.0, 60.0))
        assert str(roi) == f"{space}:1,2,3:40,50,60"

    @pytest.mark.parametrize(
        ("written", "canonical"),
        [
            ("ras:-45.50,+2,-0:9.000,3.25,9", "ras:-45.5,2,0:9,3.25,9"),
            ("voxel:0.0,0,0:5.0,6,7", "voxel:0,0,0:5,6,7"),
        ],
    )
    def test_there_is_one_way_to_write_a_region(self, written: str, canonical: str) -> None:
        assert str(Roi.parse(written)) == canonical

    @given(
        space=st.sampled_from(SPACES),
        low=st.tuples(*[st.integers(0, 999_999)] * 3),
        length=st.tuples(*[st.integers(1, 1000)] * 3),
    )
    def test_is_read_as_it_was_written(
        self, space: Any, low: tuple[int, int, int], length: tuple[int, int, int]
    ) -> None:
        scale = 1 if space == "voxel" else 1e6  # the finest that can be written
        ends = [tuple(n / scale for n in low), tuple((n + more) / scale for n, more in zip(low, length, strict=True))]
        roi = Roi(space, ends[0], ends[1])  # type: ignore[arg-type]
        if max(roi.high) < 1e6:
            assert Roi.parse(str(roi)) == roi

    @pytest.mark.parametrize(
        "written",
        [
            "",
            "ras",
            "1,2,3:4,5,6",
            "RAS:1,2,3:4,5,6",
            "mni:1,2,3:4,5,6",
            "ras:1,2,3",
            "ras:1,2,3:4,5,6:7,8,9",
            "ras:1,2:4,5",
            "ras:1,2,3:4,5,nan",
            "ras:1,2,3:4,5,inf",
            "ras:1,2,3:4,5,1e3",
            "ras:1,2,3:4,5,1_0",
            "ras:1,2,3:4,5, 6",
            "ras:1,2,3:4,5,٦",
            "ras:1,2,3:4,5,1234567",
            "ras:1,2,3:4,5,0x10",
            "ras:1,2,3:4,5,3",
            "ras:4,5,6:1,2,3",
            "voxel:0.5,0,0:4,5,6",
            "voxel:-1,0,0:4,5,6",
            "ras:1,2,3:4,5,6\n",
        ],
    )
    def test_anything_else_is_refused_and_not_repeated(self, written: str) -> None:
        with pytest.raises(RoiInvalidError) as refusal:
            Roi.parse(written)
        assert refusal.value.code == "roi_invalid"
        assert len(written) < 4 or written not in str(refusal.value)

    @given(st.text(max_size=60))
    def test_no_text_leads_to_another_error(self, written: str) -> None:
        with suppress(RoiInvalidError):
            assert str(Roi.parse(str(Roi.parse(written)))) == str(Roi.parse(written))


class TestLocate:
    @pytest.mark.parametrize("affine", GRIDS.values(), ids=GRIDS)
    def test_voxels_are_those_of_the_array(self, affine: np.ndarray) -> None:
        region = locate(scan(affine), Roi.parse("voxel:2,3,4:10,13,9"))
        assert (region.start, region.stop, region.warnings) == ((2, 3, 4), (10, 13, 9), ())

    @pytest.mark.parametrize("affine", GRIDS.values(), ids=GRIDS)
    def test_the_patients_millimetres_are_the_same_in_every_space(self, affine: np.ndarray) -> None:
        volume = scan(affine)
        middle = centres(affine)[4:14, 6:20, 3:12].reshape(-1, 3).mean(axis=0)
        low, high = middle - np.array([2.9, 3.9, 4.9]), middle + np.array([3.3, 4.3, 5.3])
        region = locate(volume, Roi.parse(text("ras", low, high)))
        assert taken(region)[inside(volume, low, high)].all()
        as_lps = (high * (-1, -1, 0) + low * (0, 0, 1), low * (-1, -1, 0) + high * (0, 0, 1))
        assert locate(volume, Roi.parse(text("lps", *as_lps))) == region
        centre = centres(affine).reshape(-1, 3).mean(axis=0)
        assert locate(volume, Roi.parse(text("centre", low - centre, high - centre))) == region

    @pytest.mark.parametrize("name", ["identity", "axial", "sagittal", "flipped"])
    def test_along_the_axes_nothing_more_is_taken_than_what_lies_in_the_box(self, name: str) -> None:
        volume = scan(GRIDS[name])
        middle = centres(volume.affine)[4:14, 6:20, 3:12].reshape(-1, 3).mean(axis=0)
        low, high = middle - np.array([2.91, 3.92, 4.93]), middle + np.array([3.31, 4.32, 5.33])
        np.testing.assert_array_equal(
            taken(locate(volume, Roi.parse(text("ras", low, high)))), inside(volume, low, high)
        )

    def test_at_an_angle_it_is_the_smallest_box_of_voxels_around_the_region(self) -> None:
        volume = scan(OBLIQUE, (40, 40, 20))
        middle = centres(OBLIQUE, (40, 40, 20))[20, 20, 10]
        low, high = middle - 6.2, middle + 6.2
        region = locate(volume, Roi.parse(text("ras", low, high)))
        held = np.argwhere(inside(volume, low, high))
        for axis in range(3):
            assert region.start[axis] <= held[:, axis].min()
            assert region.stop[axis] > held[:, axis].max()
        # along x and y the turned box is longer by sine and cosine of the angle; along z nothing is turned
        half = 6.2 * (np.cos(ANGLE) + np.sin(ANGLE))
        lengths = np.subtract(region.stop, region.start)
        assert lengths.tolist() == [2 * int(half) + 1, 2 * int(half) + 1, 2 * int(6.2 / 2) + 1]

    @settings(deadline=None)
    @given(
        start=st.tuples(*[st.integers(0, 12)] * 3),
        length=st.tuples(*[st.integers(2, 8)] * 3),
        name=st.sampled_from(["identity", "axial", "sagittal", "flipped"]),
        shift=st.tuples(*[st.sampled_from([-0.5, -0.25, 0.0, 0.25, 0.5])] * 3),
    )
    def test_a_box_of_n_voxels_length_has_n_voxels_wherever_it_begins(
        self,
        start: tuple[int, int, int],
        length: tuple[int, int, int],
        name: str,
        shift: tuple[float, float, float],
    ) -> None:
        affine = GRIDS[name]
        ends = np.array([np.add(start, shift), np.add(np.add(start, shift), length)])
        millimetres = ends @ affine[:3, :3].T + affine[:3, 3]
        roi = Roi.parse(text("ras", millimetres.min(axis=0), millimetres.max(axis=0)))
        region = locate(scan(affine), roi)
        if not region.warnings:
            assert tuple(np.subtract(region.stop, region.start)) == length

    def test_without_a_region_it_is_the_whole_and_nothing_is_copied(self) -> None:
        volume = scan(AXIAL)
        region = locate(volume, None)
        assert region.is_whole
        assert region.cut(volume) is volume
        assert region.paste(volume.array) is volume.array

    def test_what_reaches_beyond_the_scan_is_cut_and_told(self) -> None:
        region = locate(scan(AXIAL), Roi.parse("voxel:10,0,20:99,30,26"))
        assert (region.start, region.stop, region.warnings) == ((10, 0, 20), (20, 30, 25), (CUT_TO_SCAN,))

    @pytest.mark.parametrize("where", ["voxel:20,0,0:25,5,5", "ras:500,500,500:510,510,510", "centre:90,0,0:99,9,9"])
    def test_a_region_beside_the_scan_is_refused(self, where: str) -> None:
        with pytest.raises(RoiOutsideError) as refusal:
            locate(scan(AXIAL), Roi.parse(where))
        assert refusal.value.code == "roi_outside"

    @pytest.mark.parametrize("where", ["voxel:5,5,5:9,9,6", "voxel:19,0,0:99,30,25", "centre:-5,-5,-1:5,5,1"])
    def test_a_single_layer_of_voxels_is_refused(self, where: str) -> None:
        with pytest.raises(RoiTooThinError) as refusal:
            locate(scan(AXIAL), Roi.parse(where))
        assert refusal.value.code == "roi_too_thin"

    def test_a_box_between_two_voxels_centres_holds_none(self) -> None:
        with pytest.raises(RoiOutsideError):
            locate(scan(GRIDS["identity"]), Roi.parse("ras:5.2,-3,15:5.8,0,20"))


class TestCutAndPaste:
    @pytest.mark.parametrize("affine", GRIDS.values(), ids=GRIDS)
    def test_every_voxel_stays_where_it_is_in_the_patient(self, affine: np.ndarray) -> None:
        region = locate(scan(affine), Roi.parse("voxel:2,3,4:10,13,9"))
        part = region.cut(scan(affine))
        np.testing.assert_array_equal(part.array, scan(affine).array[2:10, 3:13, 4:9])
        np.testing.assert_allclose(centres(part.affine, part.array.shape), centres(affine)[2:10, 3:13, 4:9], atol=1e-9)

    def test_channels_modality_warnings_and_source_come_along(self) -> None:
        files = tuple(Path(f"{number}.dcm") for number in range(SHAPE[2]))
        second = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
        volume = scan(AXIAL, modality="MR", warnings=("odd",), further=(second,), source=files)
        part = locate(volume, Roi.parse("voxel:2,3,4:10,13,9")).cut(volume)
        assert (part.modality, part.warnings, part.source) == ("MR", ("odd",), files)
        np.testing.assert_array_equal(part.further[0], second[2:10, 3:13, 4:9])

    def test_what_is_pasted_is_zero_outside(self) -> None:
        region = locate(scan(AXIAL), Roi.parse("voxel:2,3,4:10,13,9"))
        pasted = region.paste(np.full((8, 10, 5), 3, np.uint8))
        assert (pasted.shape, pasted.dtype) == (SHAPE, np.uint8)
        assert (pasted[2:10, 3:13, 4:9] == 3).all()
        assert np.count_nonzero(pasted) == 8 * 10 * 5

    @pytest.mark.parametrize(("axis", "last"), [*itertools.product(range(3), (False, True))])
    def test_a_mask_is_cut_where_the_scan_goes_on_behind_the_face_that_it_touches(self, axis: int, last: bool) -> None:
        inner = Region((2, 2, 2), (8, 8, 8), (10, 10, 10))
        outer = Region((0, 0, 0), (10, 10, 10), (10, 10, 10))
        for region, edge in ((inner, 6), (outer, 10)):
            mask: np.ndarray = np.zeros((edge,) * 3, bool)
            mask[2, 2, 2] = True
            assert not region.cuts(mask)
            place = [2, 2, 2]
            place[axis] = edge - 1 if last else 0
            mask[tuple(place)] = True
            assert region.cuts(mask) == (region is inner)

    def test_surroundings_end_where_the_grid_does(self) -> None:
        wider = Region((4, 0, 10), (12, 8, 18), (40, 9, 20)).with_surroundings(0.25)
        assert (wider.start, wider.stop) == ((2, 0, 8), (14, 9, 20))

    def test_the_model_sees_the_same_as_of_a_file_that_was_cropped_before(self) -> None:
        volume = scan(SAGITTAL)
        region = locate(volume, Roi.parse("voxel:2,3,4:10,13,9"))
        cropped_file = Volume(volume.array[2:10, 3:13, 4:9], region.cut(volume).affine)
        first, second = (to_model_grid(one, spacing=(1.0, 1.0, 1.0)) for one in (region.cut(volume), cropped_file))
        np.testing.assert_array_equal(first.array, second.array)
