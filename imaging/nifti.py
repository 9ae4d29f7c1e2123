"""NIfTI-1 and NIfTI-2 single files to Volume and back; a header is believed only after the bytes agree with it."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from imaging.errors import (
    CorruptFileError,
    EmptyFileError,
    HeaderSizeMismatchError,
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
from imaging.volume import Allocate, InMemory, Volume

GZIP_MAGIC = b"\x1f\x8b"
MAGIC = {348: (344, b"n+1\0"), 540: (4, b"n+2\0\r\n\x1a\n")}  # header bytes -> (offset, magic) of a single file
EXTENDER_BYTES = 4  # between the header and the extensions or voxels
CHUNK_BYTES = 1 << 20
SMALL, FAST = 9, 1  # levels of gzip
REAL_DTYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
UNIT_MM = {1: 1000.0, 3: 0.001}  # NIFTI_UNITS_METER, NIFTI_UNITS_MICRON; millimetres and unknown count as 1
MIN_RELATIVE_DETERMINANT = 1e-6  # of unit axes; below, two axes are parallel up to float32 rounding
VOXEL_MM = (1e-6, 1e6)  # a nanometre to a kilometre; outside, volumes in ml overflow or vanish
FORM_TOLERANCE_MM = 1e-2  # at a corner; float32 quaternions of an honest writer stay below
DESCRIPTION_BYTES = 79  # descrip is char[80] with a closing zero

FORMS_DISAGREE = "The sform and the qform of the NIfTI header disagree; the sform was used."
NO_FORM = "The NIfTI header has neither sform nor qform; the orientation is a guess from the voxel sizes."


class _Readable(Protocol):
    """A plain file or a gzip stream."""

    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True)
class _Layout:
    """Where the voxels lie: shape (x, y, z), how many volumes, dtype with byte order, offset and end in bytes."""

    shape: tuple[int, int, int]
    volumes: int
    dtype: np.dtype[Any]
    offset: int
    end: int


def read_nifti(path: Path, *, limits: Limits, volumes: Sequence[int] = (), allocate: Allocate = InMemory) -> Volume:
    """Return the one volume of a .nii or .nii.gz file (told apart by content), voxels in the order of the file.

    Of a file with several (a fourth axis: time, or channels) the ``volumes``, counted from 0, are its channels in that
    order; without any such files are refused. The limits hold for the whole file.

    The array is float32 (x, y, z) after scl_slope and scl_inter; the affine (4, 4) is in mm, RAS+ (sform before qform).
    No memory is taken for voxels that are not in the file, and gzip is read to its CRC.

    Raises:
        ImagingError: the subclass says what is wrong with the file.
    """
    with path.open("rb") as file:
        magic = file.read(len(GZIP_MAGIC))
        file.seek(0)
        if not magic:
            raise EmptyFileError("the file is empty")
        if magic != GZIP_MAGIC:
            return _read_stream(file, path.stat().st_size, limits=limits, volumes=volumes, allocate=allocate)
        with gzip.GzipFile(fileobj=file, mode="rb") as stream:
            return _read_stream(stream, None, limits=limits, volumes=volumes, allocate=allocate)


def _read_stream(
    stream: _Readable, left: int | None, *, limits: Limits, volumes: Sequence[int], allocate: Allocate
) -> Volume:
    """Read a Volume; ``left`` is the size of a plain file in bytes, None where only inflating tells it."""
    head, header = _read_header(stream)
    layout = _layout(header, limits=limits)
    chosen = _chosen(layout, volumes)
    if left is not None:
        _check_size(left, layout, truncated=True)
    affine, warnings = _affine(header)
    slope, inter = _scaling(header)
    data = _read_exactly(stream, head, layout)
    shape = (*layout.shape, layout.volumes)
    raw = np.frombuffer(data, dtype=layout.dtype, offset=layout.offset).reshape(shape, order="F")
    first, *further = (_scale(raw[..., number], slope, inter, allocate) for number in chosen)
    return Volume(first, affine, warnings=warnings, further=tuple(further))


def _chosen(layout: _Layout, volumes: Sequence[int]) -> Sequence[int]:
    """Return the numbers of the volumes to take; where at most one is wanted, of a file with one it is that one."""
    if layout.volumes == 1 and len(volumes) <= 1:
        return (0,)
    if not volumes:
        raise SeveralVolumesError("the file holds several volumes")
    if max(volumes) >= layout.volumes:
        wanted = " and ".join(map(str, volumes))
        raise VolumeMissingError(f"the file holds {layout.volumes} volumes; {wanted} (from 0) are needed")
    return volumes


def _read(stream: _Readable, count: int) -> bytes:
    """Read at most ``count`` bytes; a short answer means the end, where gzip has checked its CRC."""
    try:
        return stream.read(count)
    except EOFError:
        raise TruncatedFileError("the gzip stream ends too early") from None
    except (gzip.BadGzipFile, zlib.error):
        raise CorruptFileError("the gzip stream is damaged") from None


def header_kind(head: bytes) -> tuple[int, Literal["<", ">"]] | None:
    """Return (header size in bytes, byte order) if the first four bytes are those of a NIfTI header, else None."""
    for size in MAGIC:
        if head[:4] == size.to_bytes(4, "little"):
            return size, "<"
        if head[:4] == size.to_bytes(4, "big"):
            return size, ">"
    return None


def _read_header(stream: _Readable) -> tuple[bytes, nib.Nifti1Header]:
    """Return the bytes of the header and the header, NIfTI-1 or NIfTI-2 of either byte order, unchecked."""
    head = _read(stream, 4)
    kind = header_kind(head)
    if kind is None:
        raise UnknownFormatError("the file is not NIfTI")
    size, order = kind
    head += _read(stream, size - len(head))
    if len(head) < size:
        raise TruncatedFileError("the file ends inside its header")
    offset, magic = MAGIC[size]
    if head[offset : offset + len(magic)] != magic:
        raise UnknownFormatError("the header is not that of a single-file NIfTI")
    if size == 540:
        return head, nib.Nifti2Header(head, endianness=order, check=False)
    return head, nib.Nifti1Header(head, endianness=order, check=False)


def _shape(header: nib.Nifti1Header) -> tuple[tuple[int, int, int], int]:
    """Return (x, y, z) and the number of volumes, along whatever further axes there are."""
    count, *dims = (int(value) for value in header["dim"])
    if not 1 <= count <= 7 or any(size < 1 for size in dims[:count]):
        raise HeaderSizeMismatchError("the header has an axis of zero or negative length")
    if count < 3 or 1 in dims[:3]:  # one slice has no extent along its normal, however many axes are written
        raise NotThreeDimensionalError("the image has fewer than 3 axes of more than one voxel")
    return (dims[0], dims[1], dims[2]), math.prod(dims[3:count])


def _dtype(header: nib.Nifti1Header) -> np.dtype[Any]:
    """Return the dtype on disk, byte order included; only real numbers of 1 to 8 bytes."""
    code = int(header["datatype"])
    if code not in REAL_DTYPES:
        raise UnsupportedDatatypeError("the voxels are not plain real numbers")
    dtype = np.dtype(REAL_DTYPES[code]).newbyteorder(header.endianness)
    if int(header["bitpix"]) != 8 * dtype.itemsize:
        raise HeaderSizeMismatchError("bitpix and datatype contradict each other")
    return dtype


def _layout(header: nib.Nifti1Header, *, limits: Limits) -> _Layout:
    """Return where the voxels must lie, from the header alone, within the limits."""
    (shape, volumes), dtype, offset = _shape(header), _dtype(header), float(header["vox_offset"])
    voxels = math.prod(shape) * volumes
    if voxels > limits.voxels:
        raise TooManyVoxelsError(f"the header claims {voxels} voxels, more than {limits.voxels}")
    if not header.sizeof_hdr + EXTENDER_BYTES <= offset <= limits.unpacked_bytes:
        raise HeaderSizeMismatchError("the voxels start inside the header or beyond any file")
    end = int(offset) + voxels * dtype.itemsize
    if end > limits.unpacked_bytes:
        raise TooManyBytesError(f"the header claims {end} bytes, more than {limits.unpacked_bytes}")
    return _Layout(shape, volumes, dtype, int(offset), end)


def _check_size(size: int, layout: _Layout, *, truncated: bool) -> None:
    """Refuse a file of ``size`` bytes that does not end where its voxels do; a short plain file is a truncated one."""
    if size < layout.end and truncated:
        raise TruncatedFileError("the file ends before its last voxel")
    if size != layout.end:
        raise HeaderSizeMismatchError("the header claims another number of bytes than the file has")


def _read_exactly(stream: _Readable, head: bytes, layout: _Layout) -> bytearray:
    """Return the whole unpacked file, grown by what is really there and never by more than one byte too many."""
    data = bytearray(head)
    while len(data) <= layout.end:
        chunk = _read(stream, min(CHUNK_BYTES, layout.end + 1 - len(data)))
        if not chunk:
            break
        data += chunk
    _check_size(len(data), layout, truncated=False)
    return data


def _scaling(header: nib.Nifti1Header) -> tuple[float, float]:
    """Return (slope, inter); a slope of 0 or NaN means no scaling (NIfTI-1, scl_slope)."""
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or math.isnan(slope):
        return 1.0, 0.0
    if math.isinf(slope) or not math.isfinite(inter):
        raise NonFiniteVoxelsError("the scaling of the voxels is not finite")
    return slope, inter


def _scale(raw: NDArray[Any], slope: float, inter: float, allocate: Allocate) -> NDArray[np.float32]:
    """Return ``raw * slope + inter`` as float32 (x, y, z), slice by slice so that float64 never holds the volume."""
    slices = allocate((raw.shape[0], raw.shape[1], raw.shape[2]))
    with np.errstate(all="ignore"):
        for z in range(raw.shape[2]):
            rows = (raw[:, :, z].T.astype(np.float64) * slope + inter).astype(np.float32)
            if not np.isfinite(rows).all():
                raise NonFiniteVoxelsError("some voxels are NaN or infinite")
            slices.put(z, rows)
    return slices.array()


@np.errstate(all="ignore")
def _affine(header: nib.Nifti1Header) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Return the affine (4, 4) in mm, RAS+, and what is odd about it."""
    zooms = np.asarray(header["pixdim"][1:4], dtype=np.float64)
    if not (np.isfinite(zooms).all() and (zooms > 0).all()):
        raise SingularAffineError("a voxel size is not a positive number")
    header["pixdim"][0] = -1 if header["pixdim"][0] < 0 else 1  # qfac; the standard reads 0 as 1
    shape, _ = _shape(header)
    header.set_data_shape(shape)
    unit = UNIT_MM.get(int(header["xyzt_units"]) & 7, 1.0)
    scale = np.diag([unit, unit, unit, 1.0])
    has_sform, has_qform = bool(header["sform_code"] > 0), bool(header["qform_code"] > 0)
    if not has_sform and not has_qform:
        return _check_affine(scale @ header.get_base_affine()), (NO_FORM,)
    qform = scale @ _qform(header)
    affine = _check_affine(scale @ header.get_sform() if has_sform else qform)
    if has_sform and has_qform and _corner_distance(affine, qform, shape) > FORM_TOLERANCE_MM:
        return affine, (FORMS_DISAGREE,)
    return affine, ()


def _qform(header: nib.Nifti1Header) -> NDArray[np.float64]:
    """Return the qform (4, 4) in the header's unit, all NaN where the quaternion is none."""
    try:
        return np.asarray(header.get_qform(), dtype=np.float64)
    except (HeaderDataError, ValueError):
        return np.full((4, 4), np.nan)


def _check_affine(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ``affine`` as float64 if it is finite and can be inverted."""
    affine = np.asarray(affine, dtype=np.float64)
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if not (np.isfinite(affine).all() and (lengths >= VOXEL_MM[0]).all() and (lengths <= VOXEL_MM[1]).all()):
        raise SingularAffineError("the affine is not finite or the size of a voxel is absurd")
    if abs(np.linalg.det(affine[:3, :3] / lengths)) < MIN_RELATIVE_DETERMINANT:
        raise SingularAffineError("the affine cannot be inverted")
    return affine


def _corner_distance(a: NDArray[np.float64], b: NDArray[np.float64], shape: tuple[int, int, int]) -> float:
    """Return the largest distance in mm between the places of a corner voxel under two affines; inf if one is NaN."""
    corners = np.array(np.meshgrid(*([0, size - 1] for size in shape), [1])).reshape(4, -1)
    with np.errstate(all="ignore"):
        distance = float(np.linalg.norm(((a - b) @ corners)[:3], axis=0).max())
    return distance if math.isfinite(distance) else math.inf


def write_nifti(path: Path, array: NDArray[Any], affine: NDArray[np.float64], *, description: str = "") -> None:
    """Write a NIfTI-1 file, gzip if the name ends in .gz; the same input gives the same bytes.

    Args:
        path: ends in .nii or .nii.gz.
        array: (x, y, z); uint8 stays uint8, anything else becomes float32.
        affine: (4, 4) in mm, RAS+; written as sform and as qform.
        description: ASCII, cut after 79 bytes; never patient data.
    """
    values = array if array.dtype == np.uint8 else array.astype(np.float32, copy=False)
    _write(path, values, affine, description=description)


def write_scan(path: Path, array: NDArray[np.float32], affine: NDArray[np.float64]) -> None:
    """Write a scan for people to look at, gzip if the name ends in .gz, quickly rather than small.

    Args:
        path: ends in .nii or .nii.gz.
        array: (x, y, z) float32; written as int16 where that loses nothing, which scanners' values nearly always allow.
        affine: (4, 4) in mm, RAS+.
    """
    limits = np.iinfo(np.int16)
    fits = array.size > 0 and limits.min <= float(array.min()) and float(array.max()) <= limits.max
    short = array.astype(np.int16) if fits else None
    exact = short is not None and np.array_equal(short, array)
    _write(path, short if short is not None and exact else array, affine, level=FAST)


def _write(
    path: Path, values: NDArray[Any], affine: NDArray[np.float64], *, description: str = "", level: int = SMALL
) -> None:
    image = nib.Nifti1Image(values, affine)
    image.set_sform(affine, code="scanner")
    image.set_qform(affine, code="scanner")
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = description.encode("ascii", "replace")[:DESCRIPTION_BYTES]
    with path.open("wb") as file:
        if path.suffix != ".gz":
            image.to_stream(file)
            return
        with gzip.GzipFile("", "wb", compresslevel=level, fileobj=file, mtime=0) as stream:
            image.to_stream(stream)
