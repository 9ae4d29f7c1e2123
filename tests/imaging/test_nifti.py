from __future__ import annotations

import contextlib
import gzip
import itertools
import struct
import tempfile
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from imaging.errors import (
    CorruptFileError,
    EmptyFileError,
    HeaderSizeMismatchError,
    ImagingError,
    NonFiniteVoxelsError,
    NotThreeDimensionalError,
    SeveralVolumesError,
    SingularAffineError,
    TooManyBytesError,
    TooManyVoxelsError,
    TruncatedFileError,
    UnknownFormatError,
    UnsupportedDatatypeError,
    VolumeMissingError,
)
from imaging.limits import Limits
from imaging.nifti import FORMS_DISAGREE, NO_FORM, read_nifti, write_nifti, write_scan

SPACING = np.array([0.7, 1.3, 4.0])
ORIENTATIONS = [
    (order, flips) for order in itertools.permutations(range(3)) for flips in itertools.product((1, -1), repeat=3)
]
DIM, DATATYPE, PIXDIM, VOX_OFFSET, SLOPE, INTER, UNITS = 40, 70, 76, 108, 112, 116, 123
QFORM_CODE, SFORM_CODE, QOFFSET_X, SROW_X, SROW_Z = 252, 254, 268, 280, 312
NAN, INF = float("nan"), float("inf")


def affine_of(order: tuple[int, ...] = (0, 1, 2), flips: tuple[int, ...] = (1, 1, 1)) -> NDArray[np.float64]:
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[list(order)] @ np.diag(SPACING * flips)
    affine[:3, 3] = [-31.5, 17.25, 402.0]
    return affine


def ramp(dtype: Any = np.float32) -> NDArray[Any]:
    return np.arange(4 * 5 * 6).reshape(4, 5, 6).astype(dtype)


def image_bytes(array: NDArray[Any], kind: Any = nib.Nifti1Image, order: str = "<") -> bytes:
    header = kind.header_class(endianness=order)
    header.set_data_dtype(array.dtype)
    image = kind(array, None, header)
    image.set_sform(affine_of(), code=1)
    image.set_qform(affine_of(), code=1)
    return bytes(image.to_bytes())


def patched(offset: int, layout: str, *values: float) -> bytes:
    data = bytearray(image_bytes(ramp()))
    struct.pack_into("<" + layout, data, offset, *values)
    return bytes(data)


def read_bytes(folder: Path, data: bytes, limits: Limits | None = None) -> Any:
    path = folder / "scan"
    path.write_bytes(data)
    return read_nifti(path, limits=limits or Limits())


class TestWriteScan:
    @pytest.mark.parametrize(
        ("values", "dtype"), [([0.0, -5.0], np.int16), ([0.5, 1.0], np.float32), ([0.0, 40_000.0], np.float32)]
    )
    def test_loses_nothing(self, tmp_path: Path, values: list[float], dtype: type[np.generic]) -> None:
        array = np.array(values, np.float32).reshape(1, 1, 2)
        write_scan(tmp_path / "scan.nii.gz", array, np.eye(4))
        image = nib.Nifti1Image.from_filename(tmp_path / "scan.nii.gz")
        assert image.get_data_dtype() == dtype
        np.testing.assert_array_equal(np.asarray(image.dataobj), array)


class TestRoundTrip:
    @pytest.mark.parametrize(("order", "flips"), ORIENTATIONS)
    def test_every_orientation_keeps_voxels_and_affine(
        self, tmp_path: Path, order: tuple[int, ...], flips: tuple[int, ...]
    ) -> None:
        affine = affine_of(order, flips)
        write_nifti(tmp_path / "a.nii.gz", ramp(), affine)
        volume = read_nifti(tmp_path / "a.nii.gz", limits=Limits())
        assert np.array_equal(volume.array, ramp())
        np.testing.assert_allclose(volume.affine, affine, atol=1e-5)
        np.testing.assert_allclose(volume.spacing, SPACING, rtol=1e-6)
        assert volume.warnings == ()
        assert volume.modality is None

    @given(
        arrays(
            np.float32,
            array_shapes(min_dims=3, max_dims=3, min_side=2, max_side=6),
            elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
        ),
        st.tuples(*[st.floats(0.2, 8.0)] * 3),
        st.tuples(*[st.floats(-3.0, 3.0)] * 3),
        st.tuples(*[st.floats(-500.0, 500.0)] * 3),
    )
    def test_any_voxels_under_any_rotation_come_back(
        self,
        array: NDArray[np.float32],
        spacing: tuple[float, ...],
        angles: tuple[float, ...],
        origin: tuple[float, ...],
    ) -> None:
        affine = np.eye(4)
        affine[:3, :3] = Rotation.from_euler("xyz", angles).as_matrix() * spacing
        affine[:3, 3] = origin
        with tempfile.TemporaryDirectory() as folder:
            write_nifti(Path(folder) / "a.nii.gz", array, affine)
            volume = read_nifti(Path(folder) / "a.nii.gz", limits=Limits())
        assert np.array_equal(volume.array, array)
        np.testing.assert_allclose(volume.affine, affine, atol=1e-4)
        assert volume.warnings == ()

    @pytest.mark.parametrize("order", ["<", ">"])
    @pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
    @pytest.mark.parametrize("pack", [bytes, gzip.compress])
    @pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "i4", "u4", "f4", "f8"])
    def test_every_encoding_gives_the_same_volume(
        self, tmp_path: Path, order: str, kind: Any, pack: Callable[[bytes], bytes], dtype: str
    ) -> None:
        volume = read_bytes(tmp_path, pack(image_bytes(ramp(dtype), kind, order)))
        assert np.array_equal(volume.array, ramp())
        np.testing.assert_allclose(volume.affine, affine_of(), atol=1e-5)

    def test_writing_twice_gives_the_same_bytes_under_any_name(self, tmp_path: Path) -> None:
        for name in ("a.nii.gz", "b.nii.gz"):
            write_nifti(tmp_path / name, ramp(), affine_of())
        data = (tmp_path / "a.nii.gz").read_bytes()
        assert data == (tmp_path / "b.nii.gz").read_bytes()
        assert data[3:8] == bytes(5)  # no flags, so no file name; mtime 0

    @pytest.mark.parametrize(("given", "stored"), [("u1", "u1"), ("f8", "f4"), ("i4", "f4"), ("?", "f4")])
    def test_labels_stay_uint8_and_the_rest_becomes_float32(self, tmp_path: Path, given: str, stored: str) -> None:
        write_nifti(tmp_path / "a.nii", ramp(given), affine_of(), description="model 1.0.0 " * 20)
        header = nib.Nifti1Image.from_filename(tmp_path / "a.nii").header
        assert header.get_data_dtype() == np.dtype(stored)
        assert header.get_xyzt_units()[0] == "mm"
        assert (header["sform_code"], header["qform_code"]) == (1, 1)
        assert bytes(header["descrip"].item()).startswith(b"model 1.0.0")

    def test_scaling_is_applied(self, tmp_path: Path) -> None:
        volume = read_bytes(tmp_path, patched(SLOPE, "2f", 2.5, -3.0))
        np.testing.assert_allclose(volume.array, ramp() * 2.5 - 3.0)

    @pytest.mark.parametrize("slope", [0.0, NAN])
    def test_a_slope_of_zero_or_nan_means_no_scaling(self, tmp_path: Path, slope: float) -> None:
        assert np.array_equal(read_bytes(tmp_path, patched(SLOPE, "2f", slope, NAN)).array, ramp())

    @pytest.mark.parametrize(("unit", "factor"), [(0, 1), (1, 1000), (2, 1), (3, 0.001), (10, 1)])
    def test_the_affine_is_in_mm_whatever_the_unit(self, tmp_path: Path, unit: int, factor: float) -> None:
        volume = read_bytes(tmp_path, patched(UNITS, "B", unit))
        np.testing.assert_allclose(volume.affine[:3], factor * affine_of()[:3], rtol=1e-5)

    def test_trailing_axes_of_length_one_are_dropped(self, tmp_path: Path) -> None:
        assert read_bytes(tmp_path, image_bytes(ramp()[..., None, None])).array.shape == (4, 5, 6)

    def test_a_real_scan_reads_as_nibabel_reads_it(self, shared_data: Path) -> None:
        path = sorted((shared_data / "hippocampus").rglob("*.nii.gz"))[0]
        image: Any = nib.load(path)
        volume = read_nifti(path, limits=Limits())
        np.testing.assert_array_equal(volume.array, image.get_fdata(dtype=np.float32))
        np.testing.assert_allclose(volume.affine, image.affine)


class TestWarnings:
    def test_forms_that_disagree_warn_and_the_sform_wins(self, tmp_path: Path) -> None:
        volume = read_bytes(tmp_path, patched(QOFFSET_X, "f", -31.4))
        assert volume.warnings == (FORMS_DISAGREE,)
        np.testing.assert_allclose(volume.affine, affine_of(), atol=1e-5)

    def test_forms_apart_by_less_than_a_hundredth_of_a_mm_do_not_warn(self, tmp_path: Path) -> None:
        assert read_bytes(tmp_path, patched(QOFFSET_X, "f", -31.495)).warnings == ()

    def test_a_broken_qform_beside_a_good_sform_warns(self, tmp_path: Path) -> None:
        assert read_bytes(tmp_path, patched(QOFFSET_X, "f", NAN)).warnings == (FORMS_DISAGREE,)

    def test_neither_form_warns(self, tmp_path: Path) -> None:
        volume = read_bytes(tmp_path, patched(QFORM_CODE, "2h", 0, 0))
        assert volume.warnings == (NO_FORM,)
        np.testing.assert_allclose(volume.spacing, SPACING, rtol=1e-6)

    def test_the_qform_alone_is_used_in_silence(self, tmp_path: Path) -> None:
        volume = read_bytes(tmp_path, patched(SFORM_CODE, "h", 0))
        assert volume.warnings == ()
        np.testing.assert_allclose(volume.affine, affine_of(), atol=1e-4)


PLAIN = image_bytes(ramp())
NAN_VOXEL = np.where(ramp() == 7, np.float32(NAN), ramp())
PARALLEL = (1.0, 0, 0, 0, 2.0, 0, 0, 0, 0, 0, 1.0, 0)
BAD = {
    "empty": (b"", EmptyFileError),
    "one byte": (b"x", UnknownFormatError),
    "text": (b"this is not a scan at all\n" * 40, UnknownFormatError),
    "gzip of nothing": (gzip.compress(b""), UnknownFormatError),
    "gzip of text": (gzip.compress(b"this is not a scan\n" * 40), UnknownFormatError),
    "gzip magic only": (b"\x1f\x8b", TruncatedFileError),
    "pair": (PLAIN[:344] + b"ni1\0" + PLAIN[348:], UnknownFormatError),
    "no magic": (PLAIN[:344] + b"\0\0\0\0" + PLAIN[348:], UnknownFormatError),
    "cut in header": (PLAIN[:200], TruncatedFileError),
    "cut in voxels": (PLAIN[:-1], TruncatedFileError),
    "one byte more": (PLAIN + b"\0", HeaderSizeMismatchError),
    "gzip one byte more": (gzip.compress(PLAIN + b"\0"), HeaderSizeMismatchError),
    "gzip of a cut file": (gzip.compress(PLAIN[:-1]), HeaderSizeMismatchError),
    "cut gzip": (gzip.compress(PLAIN)[:-1], TruncatedFileError),
    "half a gzip": (gzip.compress(PLAIN)[:200], TruncatedFileError),
    "junk after gzip": (gzip.compress(PLAIN) + b"junk", CorruptFileError),
    "bad crc": (gzip.compress(PLAIN)[:-8] + b"\0\0\0\0" + gzip.compress(PLAIN)[-4:], CorruptFileError),
    "zero axis": (patched(DIM, "8h", 3, 4, 0, 6, 1, 1, 1, 1), HeaderSizeMismatchError),
    "negative axis": (patched(DIM, "8h", 3, 4, -5, 6, 1, 1, 1, 1), HeaderSizeMismatchError),
    "no axes": (patched(DIM, "8h", 0, 4, 5, 6, 1, 1, 1, 1), HeaderSizeMismatchError),
    "nine axes": (patched(DIM, "8h", 9, 4, 5, 6, 1, 1, 1, 1), HeaderSizeMismatchError),
    "2-D": (image_bytes(ramp()[:, :, 0]), NotThreeDimensionalError),
    "one slice": (image_bytes(ramp()[:, :, :1]), NotThreeDimensionalError),
    "one column": (image_bytes(ramp()[:1]), NotThreeDimensionalError),
    "4-D": (image_bytes(np.stack([ramp(), ramp()], axis=3)), SeveralVolumesError),
    "several channels": (image_bytes(np.stack([ramp(), ramp()], axis=3)[..., None, :]), SeveralVolumesError),
    "complex": (image_bytes(ramp(np.complex64)), UnsupportedDatatypeError),
    "RGB": (patched(DATATYPE, "2h", 128, 24), UnsupportedDatatypeError),
    "datatype 0": (patched(DATATYPE, "2h", 0, 0), UnsupportedDatatypeError),
    "bitpix": (patched(DATATYPE, "2h", 16, 16), HeaderSizeMismatchError),
    "voxels in the header": (patched(VOX_OFFSET, "f", 0.0), HeaderSizeMismatchError),
    "voxels nowhere": (patched(VOX_OFFSET, "f", NAN), HeaderSizeMismatchError),
    "voxels far away": (patched(VOX_OFFSET, "f", 1e30), HeaderSizeMismatchError),
    "NaN voxel": (image_bytes(NAN_VOXEL), NonFiniteVoxelsError),
    "infinite slope": (patched(SLOPE, "2f", INF, 0.0), NonFiniteVoxelsError),
    "NaN intercept": (patched(SLOPE, "2f", 1.0, NAN), NonFiniteVoxelsError),
    "beyond float32": (image_bytes(ramp(np.float64) * 1e300), NonFiniteVoxelsError),
    "zero pixdim": (patched(PIXDIM + 8, "f", 0.0), SingularAffineError),
    "NaN pixdim": (patched(PIXDIM + 8, "f", NAN), SingularAffineError),
    "negative pixdim": (patched(PIXDIM + 8, "f", -1.0), SingularAffineError),
    "NaN affine": (patched(SROW_X, "f", NAN), SingularAffineError),
    "infinite affine": (patched(SROW_X + 12, "f", INF), SingularAffineError),
    "zero row": (patched(SROW_Z, "4f", 0, 0, 0, 0), SingularAffineError),
    "parallel axes": (patched(SROW_X, "12f", *PARALLEL), SingularAffineError),
    "700^3": (patched(DIM, "8h", 3, 700, 700, 700, 1, 1, 1, 1), TooManyVoxelsError),
}


class TestRefusals:
    @pytest.mark.parametrize(("data", "refusal"), BAD.values(), ids=BAD.keys())
    def test_bad_input_is_refused_with_its_own_error(
        self, tmp_path: Path, data: bytes, refusal: type[ImagingError]
    ) -> None:
        with pytest.raises(ImagingError) as caught:
            read_bytes(tmp_path, data)
        assert type(caught.value) is refusal
        assert str(tmp_path) not in str(caught.value)

    def test_a_qform_of_no_rotation_alone_is_refused(self, tmp_path: Path) -> None:
        data = bytearray(patched(SFORM_CODE, "h", 0))
        struct.pack_into("<3f", data, 256, 5.0, 5.0, 5.0)
        with pytest.raises(SingularAffineError):
            read_bytes(tmp_path, bytes(data))

    def test_the_limit_of_voxels_is_inclusive(self, tmp_path: Path) -> None:
        assert read_bytes(tmp_path, PLAIN, Limits(voxels=120)).array.size == 120
        with pytest.raises(TooManyVoxelsError):
            read_bytes(tmp_path, PLAIN, Limits(voxels=119))

    def test_the_limit_of_bytes_is_inclusive(self, tmp_path: Path) -> None:
        assert read_bytes(tmp_path, PLAIN, Limits(unpacked_bytes=len(PLAIN))).array.size == 120
        with pytest.raises(TooManyBytesError):
            read_bytes(tmp_path, PLAIN, Limits(unpacked_bytes=len(PLAIN) - 1))


class TestDamage:
    def test_a_flipped_bit_is_refused_or_changes_no_voxel(self, tmp_path: Path) -> None:
        noise = np.random.default_rng(3).integers(0, 900, (12, 13, 14)).astype(np.int16)
        packed = gzip.compress(image_bytes(noise), mtime=0)
        refused = 0
        for bit in np.linspace(0, 8 * len(packed) - 1, 200).astype(int):
            data = bytearray(packed)
            data[bit // 8] ^= 1 << (bit % 8)
            try:
                volume = read_bytes(tmp_path, bytes(data))
            except ImagingError:
                refused += 1
            else:
                assert np.array_equal(volume.array, noise.astype(np.float32))
        assert refused >= 190

    def test_a_flipped_bit_of_a_real_scan_is_refused_or_changes_no_voxel(
        self, tmp_path: Path, shared_data: Path
    ) -> None:
        path = sorted((shared_data / "hippocampus" / "images").glob("*.nii.gz"))[0]
        packed, intact = path.read_bytes(), read_nifti(path, limits=Limits())
        refused = 0
        for bit in np.linspace(0, 8 * len(packed) - 1, 60).astype(int):
            data = bytearray(packed)
            data[bit // 8] ^= 1 << (bit % 8)
            try:
                volume = read_bytes(tmp_path, bytes(data))
            except ImagingError:
                refused += 1
            else:
                assert np.array_equal(volume.array, intact.array)
                assert np.array_equal(volume.affine, intact.affine)
        assert refused >= 55

    @given(st.binary(max_size=600))
    def test_no_bytes_raise_another_error(self, data: bytes) -> None:
        for stream in (data, PLAIN[:352] + data, gzip.compress(PLAIN)[:60] + data):
            with tempfile.TemporaryDirectory() as folder, contextlib.suppress(ImagingError):
                assert np.isfinite(read_bytes(Path(folder), stream).array).all()

    @pytest.mark.parametrize("offset", range(348))
    def test_a_damaged_header_byte_never_raises_another_error_or_warns(self, tmp_path: Path, offset: int) -> None:
        for value in (0x00, 0x7F, 0x80, 0xFF):
            data = PLAIN[:offset] + bytes([value]) + PLAIN[offset + 1 :]
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                try:
                    volume = read_bytes(tmp_path, data)
                except ImagingError:
                    continue
            assert np.isfinite(volume.array).all()
            assert abs(np.linalg.det(volume.affine)) > 0


class TestMemory:
    @pytest.mark.parametrize("side", [700, 500])
    @pytest.mark.parametrize("pack", [bytes, gzip.compress])
    def test_a_lying_header_costs_nothing(self, tmp_path: Path, side: int, pack: Callable[[bytes], bytes]) -> None:
        head = bytearray(PLAIN[:352])
        struct.pack_into("<8h", head, DIM, 3, side, side, side, 1, 1, 1, 1)
        assert self.peak(tmp_path, pack(bytes(head))) < 5_000_000

    def test_a_gzip_bomb_behind_a_small_header_costs_nothing(self, tmp_path: Path) -> None:
        bomb = gzip.compress(PLAIN + bytes(200_000_000), compresslevel=9)
        assert self.peak(tmp_path, bomb) < 5_000_000

    @pytest.mark.parametrize("name", ["map.nii", "map.nii.gz"])
    def test_a_map_is_written_slice_by_slice(self, tmp_path: Path, name: str) -> None:
        array = np.zeros((128, 128, 64), np.float32)[::-1, :, ::-1]
        tracemalloc.start()
        try:
            write_nifti(tmp_path / name, array, np.eye(4))
            assert tracemalloc.get_traced_memory()[1] < array.nbytes / 4
        finally:
            tracemalloc.stop()

    def peak(self, folder: Path, data: bytes) -> int:
        tracemalloc.start()
        try:
            with pytest.raises(ImagingError):
                read_bytes(folder, data)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()


class TestSeveralVolumes:
    """A model may take volumes of a file with several (T2 and diffusion of a prostate, a phase of a heart)."""

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        path = tmp_path / "channels.nii"
        path.write_bytes(image_bytes(np.stack([ramp(), ramp() * 2, ramp() * 3], axis=3)))
        return path

    @pytest.mark.parametrize("number", [0, 1, 2])
    def test_the_one_that_is_asked_for_is_read(self, path: Path, number: int) -> None:
        volume = read_nifti(path, limits=Limits(), volumes=[number])
        np.testing.assert_allclose(volume.array, ramp() * (number + 1))

    def test_several_are_channels_in_the_order_asked_for(self, path: Path) -> None:
        volume = read_nifti(path, limits=Limits(), volumes=[2, 0])
        np.testing.assert_allclose(volume.array, ramp() * 3)
        np.testing.assert_allclose(volume.channels, [ramp() * 3, ramp()])

    def test_a_file_with_one_does_not_do_for_several(self, tmp_path: Path) -> None:
        single = tmp_path / "single.nii"
        single.write_bytes(image_bytes(ramp()))
        with pytest.raises(VolumeMissingError, match="1 volumes; 0 and 1"):
            read_nifti(single, limits=Limits(), volumes=[0, 1])

    def test_one_that_is_not_there_is_refused(self, path: Path) -> None:
        with pytest.raises(VolumeMissingError, match="3 volumes"):
            read_nifti(path, limits=Limits(), volumes=[3])

    def test_a_file_with_one_is_that_one(self, tmp_path: Path) -> None:
        single = tmp_path / "single.nii"
        single.write_bytes(image_bytes(ramp()))
        np.testing.assert_allclose(read_nifti(single, limits=Limits(), volumes=[1]).array, ramp())

    def test_all_of_them_count_against_the_limit(self, path: Path) -> None:
        with pytest.raises(TooManyVoxelsError):
            read_nifti(path, limits=Limits(voxels=2 * ramp().size), volumes=[0])
