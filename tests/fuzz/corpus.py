"""The scans that are damaged: real ones, each as it would be uploaded, from the shared data and from wheels."""

from __future__ import annotations

import gzip
import io
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import pydicom
from pydicom.uid import UID, generate_uid

PYDICOM = Path(pydicom.__file__).parent / "data" / "test_files"
NIBABEL = Path(nibabel.__file__).parent
HIPPOCAMPI = ("001", "004", "017", "165")
"""Of the Decathlon: two of floating point, two of bytes; the model accepts them."""
SINGLE = (
    "MR_small.dcm",
    "MR_small_implicit.dcm",
    "MR_small_bigendian.dcm",
    "MR_small_RLE.dcm",
    "MR_small_jp2klossless.dcm",
    "MR_small_jpeg_ls_lossless.dcm",
    "MR_small_padded.dcm",
    "JPEGLSNearLossless_16.dcm",
    "JPEG-lossy.dcm",
    "JPEG2000.dcm",
    "image_dfl.dcm",
)
"""Single slices of nine transfer syntaxes."""
DATE = (2026, 1, 1, 0, 0, 0)
"""Of every entry of a zip: the same input gives the same bytes."""


@dataclass(frozen=True)
class Scan:
    """What a client uploads."""

    name: str
    files: tuple[bytes, ...]


def load_corpus(data: Path) -> list[Scan]:
    """Every scan, always in the same order; ``data`` is the shared folder."""
    return [*_nifti(data), *_dicom(data), *_zips(data)]


def zipped(entries: Iterable[tuple[str, bytes]], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip of these names and contents."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in entries:
            archive.writestr(zipfile.ZipInfo(name, DATE), content, method)
    return buffer.getvalue()


def gzipped(content: bytes, level: int = 1) -> bytes:
    """A gzip file of one member, without a time."""
    return gzip.compress(content, level, mtime=0)


def _nifti(data: Path) -> Iterator[Scan]:
    folder = data / "hippocampus" / "images"
    for number in HIPPOCAMPI:
        yield Scan(f"hippocampus {number}", ((folder / f"hippocampus_{number}.nii.gz").read_bytes(),))
    plain = gzip.decompress((folder / "hippocampus_165.nii.gz").read_bytes())
    yield Scan("plain NIfTI", (plain,))
    yield Scan("NIfTI of another maker", ((NIBABEL / "tests" / "data" / "anatomical.nii").read_bytes(),))
    image = nibabel.Nifti1Image.from_bytes(plain)
    voxels = np.asarray(image.dataobj)
    yield Scan("NIfTI-2", (nibabel.Nifti2Image(voxels, image.affine).to_bytes(),))
    swapped = nibabel.Nifti1Image(voxels, image.affine, nibabel.Nifti1Header(endianness=">"))
    yield Scan("big-endian NIfTI", (swapped.to_bytes(),))
    yield Scan("gzip, not compressed", (gzipped(plain, 0),))
    yield Scan("gzip of two members", (gzipped(plain[:30_000]) + gzipped(plain[30_000:]),))
    yield Scan("gzip with every field", (_with_every_field(plain),))


def _with_every_field(content: bytes) -> bytes:
    """A gzip file with FTEXT, FEXTRA, FNAME and FCOMMENT (RFC 1952, 2.3.1)."""
    packed = gzipped(content)
    head = packed[:3] + bytes([0b11101]) + packed[4:10]
    return head + b"\x06\x00AB\x02\x00xy" + b"scan.nii\0" + b"a comment\0" + packed[10:]


def _dicom(data: Path) -> Iterator[Scan]:
    for name in SINGLE:
        yield Scan(f"two slices of {name}", tuple(_slices(PYDICOM / name)))
    yield Scan("Enhanced MR", (_frames(4),))
    yield Scan("series", tuple(path.read_bytes() for path in _series(data, "hippocampus_crop_2")))


def _slices(path: Path) -> Iterator[bytes]:
    """The same slice at two places, so that it can be read."""
    for number in range(2):
        dataset = pydicom.dcmread(path)
        dataset.ImageOrientationPatient, dataset.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 3 * number]
        dataset.PixelSpacing = [1, 1]
        uid = UID(generate_uid(entropy_srcs=[path.name, str(number)]))
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid
        buffer = io.BytesIO()
        dataset.save_as(buffer)
        yield buffer.getvalue()


def _frames(count: int) -> bytes:
    """The first frames of a multi-frame image; all of them are 23 MB."""
    packed = (NIBABEL / "nicom" / "tests" / "data" / "philips_mprage.dcm.gz").read_bytes()
    dataset = pydicom.dcmread(io.BytesIO(gzip.decompress(packed)))
    dataset.NumberOfFrames = count
    dataset.PerFrameFunctionalGroupsSequence = dataset.PerFrameFunctionalGroupsSequence[:count]
    dataset.PixelData = dataset.PixelData[: 2 * dataset.Rows * dataset.Columns * count]
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


def _series(data: Path, name: str) -> list[Path]:
    return sorted((data / "dicom" / name).iterdir())


def _zips(data: Path) -> Iterator[Scan]:
    series = [(f"series/{path.name}", path.read_bytes()) for path in _series(data, "hippocampus_crop_1")]
    yield Scan("zip of a series", (zipped(series),))
    yield Scan("zip of a series, not compressed", (zipped(series, zipfile.ZIP_STORED),))
    pair = [(f"{number}.dcm", one) for number, one in enumerate(_slices(PYDICOM / "MR_small_jpeg_ls_lossless.dcm"))]
    yield Scan("zip with folders and rubbish", (zipped([("a/", b""), *pair, ("a/.DS_Store", b"rubbish")]),))
    scan = (data / "hippocampus" / "images" / "hippocampus_017.nii.gz").read_bytes()
    yield Scan("zip of NIfTI", (zipped([("scan.nii", gzip.decompress(scan))]),))
    yield Scan("zip of gzip", (zipped([("scan.nii.gz", scan)], zipfile.ZIP_STORED),))
