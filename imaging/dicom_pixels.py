"""The pixels of a DICOM image, one frame at a time, each as the values that its header gives them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import islice
from typing import Any, BinaryIO

import gdcm
import numpy as np
from numpy.typing import NDArray
from pydicom import uid
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_modality_lut

from imaging.dicom_file import HEADER_BYTES, NATIVE, PIXELS, parsing, read_elements, tags_of, within
from imaging.dicom_header import ImageHeader, Pixels
from imaging.errors import UndecodablePixelsError, UnsupportedPixelsError

PIXEL_BYTES = 8  # of the widest pixel, a double float
TABLE = tags_of("ModalityLUTSequence")
J2K = (uid.JPEG2000Lossless, uid.JPEG2000, uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K)
JPEG_LS = (uid.JPEGLSLossless, uid.JPEGLSNearLossless)
JPEG = (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLossless, uid.JPEGLosslessSV1)
SYNTAXES = (*NATIVE, uid.RLELossless, *J2K, *JPEG_LS, *JPEG)
"""Transfer syntaxes that are read, beside the deflated one."""
EXACT = 1 << 23
"""Sums of 16 bits and of integers below are exact in single precision, so that CT need not go by double."""
PLUGINS = {
    **dict.fromkeys(J2K, "pylibjpeg"),
    **dict.fromkeys(JPEG_LS, "pyjpegls"),
    uid.RLELossless: "pylibjpeg",
}
"""One decoder for each transfer syntax, whatever else is installed. JPEG is GDCM's."""
JPEG_BITS = (8, 16)  # allocated; JPEG has no pixels of more
JPEG_SCAN = 0xDA  # SOS: nothing after it changes the size
JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}  # SOF0-15, without tables, and that of JPEG-LS
J2K_START = b"\xff\x4f\xff\x51"  # SOC, SIZ


def read_frames(header: ImageHeader) -> Iterator[NDArray[np.float32]]:
    """Yield the frames (rows, columns) in the order of the file, rescaled each by its own slope and intercept.

    MONOCHROME1, whose low values are bright, changes its sign. One frame is in memory at a time.

    Raises:
        UnsupportedPixelsError: a transfer syntax that is not accepted.
        UndecodablePixelsError: pixels that are missing, cut off or damaged, or of another size than the header's.
        CorruptFileError: far more bytes than such an image can have.
    """
    pixels = header.pixels
    if pixels is None:
        raise UndecodablePixelsError("an image has no pixels")
    stored = _stored(header, pixels)
    for frame in header.frames:
        with parsing(UndecodablePixelsError("the pixels of a slice cannot be decoded")):
            raw = next(stored, None)
            if raw is None or raw.shape != (header.rows, header.columns):
                raise UndecodablePixelsError("a slice has other pixels than its header says")
            values = _looked_up(raw, header) if pixels.has_table else _rescaled(raw, frame.slope, frame.intercept)
        yield -values if pixels.photometric == "MONOCHROME1" else values


def _rescaled(raw: NDArray[Any], slope: float, intercept: float) -> NDArray[np.float32]:
    if slope == 1 and intercept.is_integer() and abs(intercept) < EXACT and raw.dtype.itemsize <= 2:
        shifted: NDArray[np.float32] = raw.astype(np.float32)
        shifted += np.float32(intercept)
        return shifted
    values: NDArray[np.float32] = (raw * np.float64(slope) + intercept).astype(np.float32)
    return values


def _looked_up(raw: NDArray[Any], header: ImageHeader) -> NDArray[np.float32]:
    with header.path.open("rb") as file:
        dataset = read_elements(within(file, HEADER_BYTES), TABLE, stop=frozenset(PIXELS))
    values: NDArray[np.float32] = apply_modality_lut(raw, dataset).astype(np.float32)
    return values


def _stored(header: ImageHeader, pixels: Pixels) -> Iterator[NDArray[Any]]:
    """Yield the frames (rows, columns) as they are stored."""
    if pixels.syntax not in NATIVE and pixels.syntax not in PLUGINS and pixels.syntax not in JPEG:
        raise UnsupportedPixelsError("the pixels are encoded in a transfer syntax that is not accepted")
    with header.path.open("rb") as file:
        source = within(file, HEADER_BYTES + PIXEL_BYTES * header.rows * header.columns * header.count)
        source.seek(pixels.offset)
        decode = _native if pixels.syntax in NATIVE else _compressed
        yield from decode(source, header, pixels)


def _native(source: BinaryIO, header: ImageHeader, pixels: Pixels) -> Iterator[NDArray[Any]]:
    size = header.rows * header.columns * pixels.bits_allocated // 8
    if pixels.length is None or pixels.length < size * header.count or pixels.bits_allocated % 8:
        raise UndecodablePixelsError("an image has fewer pixels than its header says")
    for _ in range(header.count):
        yield _decoded(source.read(size), header, pixels)


def _compressed(source: BinaryIO, header: ImageHeader, pixels: Pixels) -> Iterator[NDArray[Any]]:
    frames = generate_frames(source, number_of_frames=header.count, extended_offsets=pixels.offsets)
    for frame in islice(frames, header.count):
        _check_size(frame, header, pixels)
        if pixels.syntax in JPEG:
            yield _by_gdcm(frame, header, pixels)
        else:
            yield _decoded(encapsulate([frame]), header, pixels)


def _decoded(data: bytes, header: ImageHeader, pixels: Pixels) -> NDArray[Any]:
    """One frame by pydicom, native or encapsulated."""
    options: dict[str, Any] = {
        "rows": header.rows,
        "columns": header.columns,
        "number_of_frames": 1,
        "samples_per_pixel": 1,
        "photometric_interpretation": pixels.photometric,
        "bits_allocated": pixels.bits_allocated,
        "bits_stored": pixels.bits_stored,
        "pixel_representation": int(pixels.signed),
        "pixel_keyword": pixels.keyword,
        "pixel_vr": pixels.vr,
    }
    decoder, plugin = get_decoder(pixels.syntax), PLUGINS.get(pixels.syntax, "")
    array: NDArray[Any] = decoder.as_array(data, decoding_plugin=plugin, **options)[0]
    return array


def _by_gdcm(frame: bytes, header: ImageHeader, pixels: Pixels) -> NDArray[Any]:
    """One frame by GDCM, which decodes JPEG of any depth as dcmtk does; pydicom lets it have no 12 bits."""
    fragments = gdcm.SequenceOfFragments.New()
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(frame)
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    allocated, stored = pixels.bits_allocated, pixels.bits_stored
    if allocated not in JPEG_BITS or not 1 <= stored <= allocated:  # on which GDCM breaks the process down
        raise UndecodablePixelsError("the header gives the pixels a depth that they cannot have")
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((header.columns, header.rows, 1))
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.MONOCHROME2))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str(pixels.syntax))))
    image.SetPixelFormat(gdcm.PixelFormat(1, allocated, stored, stored - 1, int(pixels.signed)))
    image.SetDataElement(element)
    buffer = image.GetBuffer()  # None where it cannot
    if buffer is None:
        raise UndecodablePixelsError("the pixels of a slice cannot be decoded")
    array = np.frombuffer(buffer.encode("utf-8", "surrogateescape"), f"<{'iu'[not pixels.signed]}{allocated // 8}")
    unused = allocated - stored
    values: NDArray[Any] = ((array << unused) >> unused).reshape(header.rows, header.columns)
    return values


def _check_size(frame: bytes, header: ImageHeader, pixels: Pixels) -> None:
    """Refuse a compressed frame that claims another size than the header: decoders allocate what it claims."""
    if pixels.syntax == uid.RLELossless:
        return
    claims = [_j2k_size(frame)] if pixels.syntax in J2K else list(_jpeg_sizes(frame))
    if not claims or any(claim[1:] != (header.rows, header.columns, 1) for claim in claims):
        raise UndecodablePixelsError("the compressed pixels have another size than the header says")
    if pixels.syntax in JPEG and any((bits > 8) != (pixels.bits_allocated > 8) for bits, *_ in claims):
        raise UndecodablePixelsError("the compressed pixels have another depth than the header says")


def _j2k_size(frame: bytes) -> tuple[int, int, int, int]:
    """Bits, rows, columns and components of a JPEG 2000 codestream (ISO 15444-1, A.5.1)."""
    if not frame.startswith(J2K_START):
        raise UndecodablePixelsError("the compressed pixels are no bare JPEG 2000 codestream")
    width, height, left, top = struct.unpack_from(">4I", frame, 8)
    components, bits = struct.unpack_from(">HB", frame, 40)
    return (bits & 0x7F) + 1, height - top, width - left, components


def _jpeg_sizes(frame: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Bits, rows, columns and components of every frame header before the first scan (ISO 10918-1, B.2.2)."""
    at = 2
    while at + 10 <= len(frame) and frame[at] == 0xFF and frame[at + 1] != JPEG_SCAN:
        if frame[at + 1] == 0xFF:  # a fill byte
            at += 1
            continue
        if frame[at + 1] in JPEG_FRAMES:
            yield struct.unpack_from(">BHHB", frame, at + 4)
        at += 2 + int.from_bytes(frame[at + 2 : at + 4])
