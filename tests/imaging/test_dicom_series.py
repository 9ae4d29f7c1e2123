import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import FileDataset

from imaging.dicom_series import read_dicom_series
from imaging.errors import (
    DicomdirUnsupportedError,
    DuplicateSliceError,
    ImagingError,
    MissingSliceError,
    MixedGeometryError,
    MixedSeriesError,
    MultiframeUnsupportedError,
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


def wheel_file(name: str) -> Path:
    found = get_testdata_file(name, download=False)
    assert found is not None, name
    return Path(str(found))


def read(paths: Sequence[Path], **limits: int) -> Volume:
    return read_dicom_series(paths, limits=Limits(**limits))


@pytest.fixture
def series(tmp_path: Path) -> Callable[..., list[Path]]:
    """Five slices made of the wheel's MR_small.dcm, 3 mm apart; ``change(dataset, number)`` edits each."""

    def make(change: Callable[[FileDataset, int], None] = lambda dataset, number: None, count: int = 5) -> list[Path]:
        paths = []
        for number in range(count):
            dataset = pydicom.dcmread(wheel_file("MR_small.dcm"))
            dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
            dataset.ImagePositionPatient = [-10, -20, 3 * number]
            dataset.PixelSpacing = [0.5, 0.8]
            dataset.SOPInstanceUID = f"1.2.3.{number + 1}"
            change(dataset, number)
            path = tmp_path / f"{number}.dcm"
            dataset.save_as(path)
            paths.append(path)
        return paths

    return make


class TestGeometry:
    @pytest.mark.parametrize(
        "name",
        [
            "hippocampus_crop_1",
            "hippocampus_crop_2",
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

    @pytest.mark.parametrize("name", ["MR_small_RLE.dcm", "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm"])
    def test_lossless_encodings_decode_alike(self, tmp_path: Path, name: str) -> None:
        volumes = []
        for source in ("MR_small.dcm", name):
            paths = []
            for number in range(2):
                dataset = pydicom.dcmread(wheel_file(source))
                dataset.ImagePositionPatient = [0, 0, number]
                dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
                paths.append(tmp_path / f"{source}-{number}")
                dataset.save_as(paths[-1])
            volumes.append(read(paths))
        np.testing.assert_array_equal(volumes[0].array, volumes[1].array)

    def test_a_regular_ct_of_the_wheel_is_read(self) -> None:
        folder = wheel_file("dicomdirtests/98892001/CT5N/2062").parent
        volume = read(sorted(folder.iterdir()))
        assert (volume.array.shape, volume.modality) == ((16, 16, 5), "CT")

    def test_an_object_without_an_image_is_left_out_with_a_warning(self, shared_data: Path) -> None:
        volume = read(sorted((shared_data / "dicom" / "dcmqi_seg").iterdir()))
        assert volume.array.shape[2] == 3
        assert volume.warnings == ("1 files without an image were left out",)


class TestRefusals:
    def test_a_missing_slice(self, series: Callable[..., list[Path]]) -> None:
        paths = series(count=8)
        with pytest.raises(MissingSliceError, match="1 slices"):
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
            ("SC_rgb_rle_2frame.dcm", MultiframeUnsupportedError),
            ("SC_rgb_jpeg.dcm", UnsupportedPixelsError),
            ("image_dfl.dcm", UndecodablePixelsError),
            ("rtplan.dcm", NoDicomImagesError),
        ],
    )
    def test_what_is_no_series_of_grey_slices(self, name: str, error: type[ImagingError]) -> None:
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

    def test_every_file_of_the_wheel_is_refused_with_a_code_or_read(self) -> None:
        base = wheel_file("MR_small.dcm").parent
        codes = set()
        for path in sorted(one for one in base.rglob("*") if one.is_file()):
            try:
                read([path])
            except ImagingError as error:
                codes.add(error.code)
        assert {"single_slice", "no_dicom_images", "dicomdir_unsupported", "multiframe_unsupported"} <= codes
