"""Every reason for which a scan is refused, each with a stable code.

A message never carries a path, a file name or a value of the scan's header that could name a patient.
"""

from __future__ import annotations

from typing import ClassVar


class ImagingError(Exception):
    """A scan that cannot be read; ``code`` is stable and safe to show to a client."""

    code: ClassVar[str] = "imaging_error"


class EmptyFileError(ImagingError):
    """A file of zero bytes, or an archive or folder without any file."""

    code = "empty_file"


class UnknownFormatError(ImagingError):
    """Content that is neither NIfTI (.nii, .nii.gz), nor DICOM, nor a zip of them."""

    code = "unknown_format"


class TruncatedFileError(ImagingError):
    """A file that ends before the data its header claims."""

    code = "truncated_file"


class CorruptFileError(ImagingError):
    """Data that fail their own check (CRC, length, structure)."""

    code = "corrupt_file"


class HeaderSizeMismatchError(ImagingError):
    """A header whose sizes contradict each other or the number of bytes in the file."""

    code = "header_size_mismatch"


class NotThreeDimensionalError(ImagingError):
    """An image with fewer than three axes."""

    code = "not_three_dimensional"


class SeveralVolumesError(ImagingError):
    """A time series or a multi-channel image where one volume is expected."""

    code = "several_volumes"


class VolumeMissingError(ImagingError):
    """A file with fewer volumes than the number that the model takes."""

    code = "volume_missing"


class UnsupportedDatatypeError(ImagingError):
    """Voxels that are not plain real numbers (complex, RGB, binary)."""

    code = "unsupported_datatype"


class NonFiniteVoxelsError(ImagingError):
    """Voxels that are NaN or infinite, or a rescaling that makes them so."""

    code = "non_finite_voxels"


class SingularAffineError(ImagingError):
    """A voxel-to-millimetre transform that is not finite or cannot be inverted."""

    code = "singular_affine"


class TooManyVoxelsError(ImagingError):
    """More voxels than ``Limits.voxels``."""

    code = "too_many_voxels"


class TooManyBytesError(ImagingError):
    """More unpacked bytes than ``Limits.unpacked_bytes``."""

    code = "too_many_bytes"


class TooManyFilesError(ImagingError):
    """More files than ``Limits.files``."""

    code = "too_many_files"


class UnsafeArchivePathError(ImagingError):
    """An archive entry that points outside the archive or is a link or device."""

    code = "unsafe_archive_path"


class EncryptedArchiveError(ImagingError):
    """An archive entry that needs a password."""

    code = "encrypted_archive"


class NestedArchiveError(ImagingError):
    """An archive inside an archive."""

    code = "nested_archive"


class MixedInputError(ImagingError):
    """More than one scan at once: NIfTI beside DICOM, several NIfTI files, a zip beside other files."""

    code = "mixed_input"


class NoDicomImagesError(ImagingError):
    """DICOM files none of which is an image."""

    code = "no_dicom_images"


class DicomdirUnsupportedError(ImagingError):
    """A DICOMDIR, which is an index of files and not an image."""

    code = "dicomdir_unsupported"


class MissingSliceError(ImagingError):
    """A gap between the slices of a series."""

    code = "missing_slice"


class DuplicateSliceError(ImagingError):
    """Two slices at the same position."""

    code = "duplicate_slice"


class MixedSeriesError(ImagingError):
    """Slices of more than one series, of which not exactly one is what the model was made for."""

    code = "mixed_series"


class SeriesNotFoundError(ImagingError):
    """No image of the series that was asked for."""

    code = "series_not_found"


class MixedGeometryError(ImagingError):
    """Slices whose size, spacing, orientation or frame of reference differ."""

    code = "mixed_geometry"


class TiltedSeriesError(ImagingError):
    """Slices stacked along a direction that is not their normal (gantry tilt)."""

    code = "tilted_series"


class SingleSliceError(ImagingError):
    """One slice only, which has no extent along the third axis."""

    code = "single_slice"


class UnsupportedPixelsError(ImagingError):
    """Pixels that are not one grey value each, or a transfer syntax that is not supported."""

    code = "unsupported_pixels"


class MultiframeUnsupportedError(ImagingError):
    """A DICOM file with several frames that do not say where each lies."""

    code = "multiframe_unsupported"


class UndecodablePixelsError(ImagingError):
    """Compressed pixels that the decoder refuses."""

    code = "undecodable_pixels"


class ReaderCrashedError(ImagingError):
    """A scan on which the process that reads it broke down."""

    code = "reader_crashed"


class ReaderOutOfMemoryError(ImagingError):
    """A scan that takes more memory to read than ``Limits.memory``."""

    code = "reader_out_of_memory"


class ReaderTimeoutError(ImagingError):
    """A scan that takes longer to read than ``Limits.seconds``."""

    code = "reader_timeout"


class RoiInvalidError(ImagingError, ValueError):
    """A region of interest that is not written as one, or whose box is empty."""

    code = "roi_invalid"


class RoiOutsideError(ImagingError):
    """A region of interest that holds no voxel of the scan."""

    code = "roi_outside"


class RoiTooThinError(ImagingError):
    """A region of interest with a single voxel along an axis."""

    code = "roi_too_thin"


class UnwritableError(Exception):
    """No DICOM object can be made of a result; the result itself is not affected, so this refuses no scan."""
