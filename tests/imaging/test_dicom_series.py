import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset

from imaging.dicom_series import read_dicom_series
from imaging.errors import (
    DicomdirUnsupportedError,
    DuplicateSliceError,
    ImagingError,
    MissingSliceError,
    MixedGeometryError,
    MixedSeriesError,
    NoDicomImagesError,
    SingleSliceError,
    TiltedSeriesError,
    TooManyVoxelsError,
    UndecodablePixelsError,
    UnsupportedPixelsError,
)
from imaging.limits import Limits
from imaging.volume import Volume

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")


def read(paths: Sequence[Path], **limits: int) -> Volume:
    return read_dicom_series(paths, limits=Limits(**limits))


class TestGeometry:
    @pytest.mark.parametrize(
        "name",
        [
            "hippocampus_crop_1",
            "hippocampus_crop_2",
            "prostate_t2_1",
            "prostate_t2_2",
            "prostate_t2_coronal",
            "prostate_t2_sagittal",
            "whole_brain_t1post",
        ],
    )
    def test_every_slice_lies_where_its_file_says(self, shared_data: Path, name: str) -> None:
        paths = sorted(path for path in (shared_data / "dicom" / name).rglob("*") if path.is_file())
        volume = read(paths)
        normal_steps = set()
        for path in paths:
            header = pydicom.dcmread(path, stop_before_pixels=True)
            lps = np.array(header.ImagePositionPatient, dtype=float)
            row, column = np.array(header.ImageOrientationPatient, dtype=float).reshape(2, 3)
            far = (
                lps
                + row * header.PixelSpacing[1] * (header.Columns - 1)
                + column * header.PixelSpacing[0] * (header.Rows - 1)
            )
            index = np.linalg.solve(volume.affine, [-lps[0], -lps[1], lps[2], 1])
            k = round(index[2])
            normal_steps.add(k)
            for corner, world in (((0, 0, k, 1), lps), ((header.Columns - 1, header.Rows - 1, k, 1), far)):
                placed = (volume.affine @ corner)[:3] * [-1, -1, 1]
                np.testing.assert_allclose(placed, world, atol=0.01)
        assert normal_steps == set(range(len(paths)))

    def test_columns_run_along_x_and_rows_along_y(self, series: Callable[..., list[Path]]) -> None:
        paths = series()
        volume = read(paths)
        pixels = pydicom.dcmread(paths[2]).pixel_array
        np.testing.assert_array_equal(volume.array[:, :, 2], pixels.T)
        assert volume.spacing == pytest.approx((0.8, 0.5, 3.0))

    def test_the_order_of_the_files_does_not_matter(self, series: Callable[..., list[Path]]) -> None:
        paths = series(count=4)
        first = read(paths)
        for order in itertools.permutations(paths):
            volume = read(order)
            np.testing.assert_array_equal(volume.array, first.array)
            np.testing.assert_array_equal(volume.affine, first.affine)


class TestPixels:
    def test_each_slice_is_rescaled_by_its_own_slope(self, series: Callable[..., list[Path]]) -> None:
        def change(dataset: FileDataset, number: int) -> None:
            dataset.RescaleSlope, dataset.RescaleIntercept = number + 1, -number

        paths = series(change)
        volume = read(paths)
        for number, path in enumerate(paths):
            expected = pydicom.dcmread(path).pixel_array.T * (number + 1.0) - number
            np.testing.assert_allclose(volume.array[:, :, number], expected)

    def test_monochrome1_is_turned_round(self, series: Callable[..., list[Path]]) -> None:
        plain = read(series())
        inverted = read(series(lambda dataset, number: setattr(dataset, "PhotometricInterpretation", "MONOCHROME1")))
        np.testing.assert_allclose(inverted.array, -plain.array)

    def test_a_regular_ct_of_the_wheel_is_read(self, wheel_file: Callable[[str], Path]) -> None:
        folder = wheel_file("dicomdirtests/98892001/CT5N/2062").parent
        volume = read(sorted(folder.iterdir()))
        assert (volume.array.shape, volume.modality) == ((16, 16, 5), "CT")

    def test_an_object_without_an_image_is_left_out_with_a_warning(self, shared_data: Path) -> None:
        volume = read(sorted((shared_data / "dicom" / "dcmqi_seg").iterdir()))
        assert volume.array.shape[2] == 3
        assert volume.warnings == ("1 file without an image left out: 1 SEG.",)


class TestLeftOut:
    def test_a_text_and_a_dicomdir_beside_the_images_as_on_a_cd(
        self, tmp_path: Path, series: Callable[..., list[Path]], wheel_file: Callable[[str], Path]
    ) -> None:
        (tmp_path / "README").write_text("Insert the disc.")
        volume = read([wheel_file("DICOMDIR"), *series(), tmp_path / "README"])
        assert volume.array.shape == (64, 64, 5)
        assert volume.warnings == ("2 files without an image left out: 1 DICOMDIR, 1 not DICOM.",)

    @pytest.mark.parametrize("cut", [0, 140, 300, 600, 1200, 1600, 5000])
    @pytest.mark.parametrize("number", [0, 2, 4])
    def test_a_slice_that_is_cut_off_never_is(self, series: Callable[..., list[Path]], number: int, cut: int) -> None:
        paths = series()
        paths[number].write_bytes(paths[number].read_bytes()[:cut])
        with pytest.raises(ImagingError) as caught:
            read(paths)
        assert caught.value.code in ("empty_file", "truncated_file", "undecodable_pixels")


class TestRefusals:
    @pytest.mark.parametrize(
        ("folder", "error"),
        [
            ("77654033/CT2/17106", MissingSliceError),
            ("98892003/MR700/4467", MixedGeometryError),
            ("98892003/MR1/15820", MixedSeriesError),
        ],
    )
    def test_the_wheels_series_with_gaps_with_rotation_and_mixed(
        self, wheel_file: Callable[[str], Path], folder: str, error: type[ImagingError]
    ) -> None:
        paths = sorted(wheel_file(f"dicomdirtests/{folder}").parent.iterdir())
        if error is MixedSeriesError:
            paths = sorted(path for path in paths[0].parents[1].rglob("MR[12]/*"))
        with pytest.raises(error):
            read(paths)

    def test_the_middle_one_of_three_after_a_gap(self, series: Callable[..., list[Path]]) -> None:
        with pytest.raises(MissingSliceError, match=r": 1$"):
            read([path for number, path in enumerate(series(count=4)) if number != 2])

    def test_a_slice_moved_sideways(self, series: Callable[..., list[Path]]) -> None:
        def change(dataset: FileDataset, number: int) -> None:
            dataset.ImagePositionPatient = [-10 + 2 * (number == 2), -20, 3 * number]

        with pytest.raises(MixedGeometryError, match=r"2\.00 mm beside"):
            read(series(change))

    def test_the_detail_of_a_position_written_to_a_hundredth_of_a_mm_is_no_reason(
        self, series: Callable[..., list[Path]]
    ) -> None:
        places = np.round(np.arange(20) * 10 / 3, 2)
        volume = read(
            series(lambda dataset, number: setattr(dataset, "ImagePositionPatient", [0, 0, places[number]]), count=20)
        )
        assert volume.spacing[2] == pytest.approx(10 / 3, abs=1e-3)

    def test_a_missing_slice(self, series: Callable[..., list[Path]]) -> None:
        paths = series(count=8)
        with pytest.raises(MissingSliceError, match=r": 1$"):
            read(paths[:3] + paths[4:])

    def test_two_slices_in_one_place(self, series: Callable[..., list[Path]]) -> None:
        with pytest.raises(DuplicateSliceError):
            read(series(lambda dataset, number: setattr(dataset, "ImagePositionPatient", [0, 0, 3 * min(number, 3)])))

    def test_two_series(self, series: Callable[..., list[Path]]) -> None:
        def change(dataset: FileDataset, number: int) -> None:
            dataset.SeriesInstanceUID = f"1.2.{number % 2}"

        with pytest.raises(MixedSeriesError, match="2 series"):
            read(series(change))

    def test_a_tilted_gantry(self, series: Callable[..., list[Path]]) -> None:
        with pytest.raises(TiltedSeriesError):
            read(series(lambda dataset, number: setattr(dataset, "ImagePositionPatient", [0, number, 3 * number])))

    @pytest.mark.parametrize(
        ("keyword", "value"),
        [
            ("ImageOrientationPatient", [0, 1, 0, 0, 0, -1]),
            ("ImageOrientationPatient", [1, 0, 0, 1, 0, 0]),
            ("PixelSpacing", [0.5, 0.9]),
            ("PixelSpacing", [0.0, 0.0]),
            ("FrameOfReferenceUID", "1.9"),
            ("Rows", 32),
            ("ImagePositionPatient", [-10, -20, 7.2]),
        ],
    )
    def test_slices_that_make_no_box(self, series: Callable[..., list[Path]], keyword: str, value: object) -> None:
        def change(dataset: FileDataset, number: int) -> None:
            if number == 2:
                setattr(dataset, keyword, value)

        with pytest.raises(MixedGeometryError):
            read(series(change))

    def test_slices_that_do_not_say_where_they_lie(self, series: Callable[..., list[Path]]) -> None:
        with pytest.raises(MixedGeometryError):
            read(series(lambda dataset, number: dataset.pop("ImagePositionPatient")))

    def test_a_localizer_of_three_planes(self, shared_data: Path) -> None:
        with pytest.raises(MixedGeometryError):
            read(sorted((shared_data / "dicom" / "localizer_three_planes").iterdir()))

    def test_a_single_slice(self, series: Callable[..., list[Path]]) -> None:
        with pytest.raises(SingleSliceError):
            read(series(count=1))

    @pytest.mark.parametrize(
        ("name", "error"),
        [
            ("DICOMDIR", DicomdirUnsupportedError),
            ("SC_rgb_rle_2frame.dcm", UnsupportedPixelsError),
            ("SC_rgb_jpeg.dcm", UnsupportedPixelsError),
            ("rtplan.dcm", NoDicomImagesError),
        ],
    )
    def test_what_is_no_series_of_grey_slices(
        self, wheel_file: Callable[[str], Path], name: str, error: type[ImagingError]
    ) -> None:
        with pytest.raises(error):
            read([wheel_file(name)])

    def test_more_voxels_than_the_limit_before_any_is_decoded(self, series: Callable[..., list[Path]]) -> None:
        with pytest.raises(TooManyVoxelsError):
            read(series(), voxels=64 * 64 * 5 - 1)

    def test_a_file_cut_off_half_way(self, series: Callable[..., list[Path]]) -> None:
        paths = series()
        data = paths[1].read_bytes()
        paths[1].write_bytes(data[: len(data) - 3000])
        with pytest.raises(UndecodablePixelsError):
            read(paths)
