"""What the science refuses to do."""

from __future__ import annotations

from typing import ClassVar


class NcaError(Exception):
    """Base of this package's errors; ``code`` is stable and safe to show."""

    code: ClassVar[str] = "nca_error"


class InvalidArchitectureError(NcaError):
    """The architecture contradicts itself, or the weights do not fit it."""

    code = "invalid_architecture"


class InvalidInputError(NcaError):
    """The image has the wrong shape or type, or holds non-finite values."""

    code = "invalid_input"


class ImageTooSmallError(NcaError):
    """A level would be thinner than its kernel can reflect."""

    code = "image_too_small"


class ImageTooLargeError(NcaError):
    """The states of this image fit neither the memory budget nor the disk; refused before any work."""

    code = "image_too_large"


class EngineUnavailableError(NcaError):
    """The engine asked for does not exist or cannot run here."""

    code = "engine_unavailable"


class UncalibratableError(NcaError):
    """Dice does not fall with NQM on the calibration scans, so no threshold follows."""

    code = "uncalibratable"


class CancelledError(NcaError):
    """A progress callback asked to stop."""

    code = "cancelled"
