"""Enhanced images: many frames in one file, each with a place and a rescaling of its own."""

import gzip
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import highdicom as hd
import nibabel
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import (
    UID,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
    UltrasoundMultiFrameImageStorage,
)

from imaging.dicom_about import About, CodedSegment
from imaging.dicom_geometry import LPS_TO_RAS
from imaging.dicom_seg import write_segmentation
from imaging.dicom_series import read_dicom_series
from imaging.dicom_sr import Finding, write_report
from imaging.errors import (
    DuplicateSliceError,
    ImagingError,
    MissingSliceError,
    MixedGeometryError,
    MultiframeUnsupportedError,
    TooManyFilesError,
    TooManyVoxelsError,
    UndecodablePixelsError,
)
from imaging.limits import Limits
from imaging.volume import Volume

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

Find = Callable[[str], Path]
Enhanced = Callable[..., Path]
IodErrors = Callable[[Path, str], list[str]]
OBLIQUE = [0.8, 0.6, 0.0, 0.0, 0.0, -1.0]
ORDERS = {"up": [0, 1, 2, 3, 4, 5], "down": [5, 4, 3, 2, 1, 0], "interleaved": [0, 2, 4, 1, 3, 5]}
SEGMENTS = (
    CodedSegment(1, "hippocampus", "SCT", "5366008", "Hippocampus"),
    CodedSegment(4, "head", "99NCAGATE", "HIPP-ANT", "Anterior hippocampus"),
)
ABOUT = About("a job", datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC), "hippocampus", "20260504-000000", "accept")


def read(*paths: Path, **limits: int) -> Volume:
    return read_dicom_series(paths, limits=Limits(**limits))


def stored(order: list[int]) -> NDArray[np.uint16]:
    """Frames (n, 24, 16) as they are stored; the plane at place k holds values from 1000 k on."""
    planes = np.arange(24 * 16, dtype=np.uint16).reshape(24, 16) + 1000 * np.arange(6, dtype=np.uint16)[:, None, None]
    return planes[order]


def item(**values: Any) -> list[Dataset]:
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return [made]


@pytest.fixture
def enhanced(tmp_path: Path, wheel_file: Find) -> Enhanced:
    """A file of six frames 3 mm apart, 24 rows 0.5 mm apart, 16 columns 0.8 mm apart; ``change(dataset)`` edits it."""

    def make(
        order: list[int] = ORDERS["up"],
        change: Callable[[FileDataset], object] = lambda dataset: None,
        *,
        kind: UID = EnhancedMRImageStorage,
        everything_per_frame: bool = False,
        rescale: Callable[[int], tuple[float, float]] = lambda place: (1.0, 0.0),
        name: str = "enhanced",
    ) -> Path:
        dataset = pydicom.dcmread(wheel_file("MR_small.dcm"))
        for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
            delattr(dataset, keyword)
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = kind
        dataset.NumberOfFrames, dataset.Rows, dataset.Columns = len(order), 24, 16
        dataset.PixelRepresentation = 0
        dataset.PixelData = stored(order).tobytes()
        normal = np.cross(OBLIQUE[:3], OBLIQUE[3:])
        whole = {
            "PlaneOrientationSequence": item(ImageOrientationPatient=OBLIQUE),
            "PixelMeasuresSequence": item(PixelSpacing=[0.5, 0.8], SliceThickness=3),
        }
        dataset.SharedFunctionalGroupsSequence = [Dataset()] if everything_per_frame else item(**whole)
        groups = []
        for place in order:
            slope, intercept = rescale(place)
            position = (np.array([-10.0, -20.0, 5.0]) + 3 * place * normal).tolist()
            own = {
                "PlanePositionSequence": item(ImagePositionPatient=position),
                "PixelValueTransformationSequence": item(
                    RescaleSlope=slope, RescaleIntercept=intercept, RescaleType="US"
                ),
                **(whole if everything_per_frame else {}),
            }
            groups += item(**own)
        dataset.PerFrameFunctionalGroupsSequence = groups
        change(dataset)
        path = tmp_path / name
        dataset.save_as(path)
        return path

    return make


class TestReading:
    @pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
    @pytest.mark.parametrize("per_frame", [False, True], ids=["shared", "per frame"])
    def test_frames_lie_where_highdicom_puts_them(self, enhanced: Enhanced, order: list[int], per_frame: bool) -> None:
        path = enhanced(order, everything_per_frame=per_frame)
        volume = read(path)
        by_others = hd.Image.from_dataset(pydicom.dcmread(enhanced(order, name="other"))).get_volume()
        expected = LPS_TO_RAS @ by_others.affine
        for corner in np.ndindex(2, 2, 2):
            k, row, column = np.array(corner) * (np.array(by_others.array.shape) - 1)
            place = expected @ [k, row, column, 1]
            x, y, z = np.rint(np.linalg.solve(volume.affine, place)[:3]).astype(int)
            np.testing.assert_allclose(volume.affine @ [x, y, z, 1], place, atol=1e-4)
            assert volume.array[x, y, z] == by_others.array[k, row, column]
        assert volume.spacing == pytest.approx((0.8, 0.5, 3.0))
        assert [order[number] for number in volume.frames] in (ORDERS["up"], ORDERS["down"])

    def test_every_order_of_the_frames_gives_the_same_volume(self, enhanced: Enhanced) -> None:
        volumes = [read(enhanced(order)) for order in ORDERS.values()]
        for one in volumes[1:]:
            np.testing.assert_array_equal(one.array, volumes[0].array)
            np.testing.assert_allclose(one.affine, volumes[0].affine, atol=1e-9)

    def test_each_frame_is_rescaled_by_its_own_slope(self, enhanced: Enhanced) -> None:
        plain = read(enhanced(ORDERS["interleaved"]))
        scaled = read(enhanced(ORDERS["interleaved"], rescale=lambda place: (place + 1.0, -float(place))))
        values = np.arange(6.0)
        places = values if plain.array[0, 0, 0] == 0 else values[::-1]
        np.testing.assert_allclose(scaled.array, plain.array * (places + 1) - places)

    @pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless])
    @pytest.mark.parametrize("table", [False, True], ids=["plain", "extended offset table"])
    def test_compressed_frames_are_those_of_the_plain_file(self, enhanced: Enhanced, syntax: str, table: bool) -> None:
        order = ORDERS["interleaved"]
        path = enhanced(order, lambda one: one.compress(syntax, encapsulate_ext=table, generate_instance_uid=False))
        np.testing.assert_array_equal(read(path).array, read(enhanced(order, name="plain")).array)

    def test_implicit_vr_and_sequences_without_lengths(self, enhanced: Enhanced) -> None:
        def change(dataset: FileDataset) -> None:
            dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
            for keyword in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
                dataset[keyword].is_undefined_length = True

        np.testing.assert_array_equal(
            read(enhanced(ORDERS["up"], change)).array, read(enhanced(ORDERS["up"], name="plain")).array
        )

    def test_enhanced_ct_is_read_as_well(self, enhanced: Enhanced) -> None:
        path = enhanced(
            ORDERS["up"], lambda one: setattr(one, "Modality", "CT"), kind=EnhancedCTImageStorage,
            rescale=lambda place: (1.0, -1024.0),
        )  # fmt: skip
        volume = read(path)
        assert (volume.modality, volume.array.min()) == ("CT", -1024)

    def test_a_whole_head_by_philips(self, tmp_path: Path) -> None:
        packed = Path(nibabel.__file__).parent / "nicom" / "tests" / "data" / "philips_mprage.dcm.gz"
        (tmp_path / "a").write_bytes(gzip.decompress(packed.read_bytes()))
        volume = read(tmp_path / "a")
        assert volume.array.shape == (256, 256, 176)
        others = hd.Image.from_dataset(pydicom.dcmread(tmp_path / "a"))
        first = others.PerFrameFunctionalGroupsSequence[volume.frames[0]].PlanePositionSequence[0].ImagePositionPatient
        np.testing.assert_allclose(volume.affine[:3, 3] * [-1, -1, 1], np.array(first, float), atol=1e-3)


class TestRefusals:
    @pytest.mark.parametrize(
        ("order", "error"),
        [([0, 1, 2, 3, 3, 4], DuplicateSliceError), ([0, 1, 2, 4, 5], MissingSliceError)],
        ids=["two echoes or times", "a gap"],
    )
    def test_frames_that_are_no_box(self, enhanced: Enhanced, order: list[int], error: type[ImagingError]) -> None:
        with pytest.raises(error):
            read(enhanced(order))

    def test_frames_that_do_not_say_where_they_lie(self, enhanced: Enhanced) -> None:
        def change(dataset: FileDataset) -> None:
            del dataset.PerFrameFunctionalGroupsSequence
            dataset.SOPClassUID = UltrasoundMultiFrameImageStorage

        with pytest.raises(MultiframeUnsupportedError):
            read(enhanced(ORDERS["up"], change))

    def test_a_frame_without_a_position(self, enhanced: Enhanced) -> None:
        def change(dataset: FileDataset) -> None:
            del dataset.PerFrameFunctionalGroupsSequence[2].PlanePositionSequence

        with pytest.raises(MixedGeometryError):
            read(enhanced(ORDERS["up"], change))

    @pytest.mark.parametrize("count", [5, 7])
    def test_another_number_of_frames_than_of_places(self, enhanced: Enhanced, count: int) -> None:
        with pytest.raises(MultiframeUnsupportedError):
            read(enhanced(ORDERS["up"], lambda dataset: setattr(dataset, "NumberOfFrames", count)))

    def test_pixels_that_are_cut_off(self, enhanced: Enhanced) -> None:
        path = enhanced()
        path.write_bytes(path.read_bytes()[:-1000])
        with pytest.raises(UndecodablePixelsError):
            read(path)

    def test_more_frames_or_voxels_than_the_limits(self, enhanced: Enhanced) -> None:
        with pytest.raises(TooManyFilesError):
            read(enhanced(), files=5)
        with pytest.raises(TooManyVoxelsError):
            read(enhanced(), voxels=24 * 16 * 6 - 1)

    def test_a_claim_of_millions_of_frames_is_refused_by_the_header(self, enhanced: Enhanced) -> None:
        with pytest.raises((TooManyFilesError, TooManyVoxelsError)):
            read(enhanced(ORDERS["up"], lambda dataset: setattr(dataset, "NumberOfFrames", 2**31 - 1)))


class TestResults:
    @pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
    @pytest.mark.parametrize("per_frame", [False, True], ids=["shared", "per frame"])
    def test_the_segmentation_lies_where_the_mask_does(
        self,
        enhanced: Enhanced,
        tmp_path: Path,
        order: list[int],
        per_frame: bool,
        dcmqi_points: Callable[[Path, Path], list[NDArray[np.float64]]],
    ) -> None:
        volume = read(enhanced(order, everything_per_frame=per_frame))
        labels = mask_for(volume)
        path = tmp_path / "segmentation.dcm"
        write_segmentation(path, labels, source=volume.source, frames=volume.frames, segments=SEGMENTS, about=ABOUT)
        found = dcmqi_points(path, tmp_path)
        for segment, points in zip(SEGMENTS, found, strict=True):
            homogeneous = np.c_[points, np.ones(len(points))]
            voxels = np.linalg.solve(volume.affine, homogeneous.T)[:3].T
            np.testing.assert_allclose(voxels, np.rint(voxels), atol=0.01)
            assert {tuple(one) for one in np.rint(voxels).astype(int).tolist()} == {
                tuple(one) for one in np.argwhere(labels == segment.label).tolist()
            }

    def test_both_objects_conform_and_refer_to_the_frames(
        self, enhanced: Enhanced, tmp_path: Path, iod_errors: IodErrors
    ) -> None:
        source = enhanced(ORDERS["down"])
        volume = read(source)
        segmentation, report = tmp_path / "segmentation.dcm", tmp_path / "report.dcm"
        write_segmentation(
            segmentation, mask_for(volume), source=volume.source, frames=volume.frames, segments=SEGMENTS, about=ABOUT
        )
        finding = Finding("hippocampus", SEGMENTS[0], 1, "accept", (), 3.25, 0.05, 0.91, (0.85, 0.94))
        write_report(
            report, [finding, replace(finding, name="union", segment=None, number=None)], source=volume.source,
            segmentation=segmentation, about=ABOUT,
        )  # fmt: skip
        assert iod_errors(segmentation, "Segmentation") == []
        assert iod_errors(report, "ComprehensiveSR") == []
        made, image = pydicom.dcmread(segmentation), pydicom.dcmread(source)
        for frame in made.PerFrameFunctionalGroupsSequence:
            (derived,) = frame.DerivationImageSequence
            (referenced,) = derived.SourceImageSequence
            assert referenced.ReferencedSOPInstanceUID == image.SOPInstanceUID
            number = int(referenced.ReferencedFrameNumber)
            there = image.PerFrameFunctionalGroupsSequence[number - 1].PlanePositionSequence[0].ImagePositionPatient
            here = frame.PlanePositionSequence[0].ImagePositionPatient
            np.testing.assert_allclose(np.array(here, float), np.array(there, float), atol=1e-6)


def mask_for(volume: Volume) -> NDArray[np.uint8]:
    """Two segments that no mirroring or transposition leaves where they are; slices without any."""
    labels = np.zeros(volume.array.shape, np.uint8)
    labels[3:8, 6:9, 1:4] = 1
    labels[8:11, 6:9, 3] = 4
    return labels
