"""What the pacs room refuses, or cannot do."""

from __future__ import annotations

from typing import ClassVar


class PacsError(Exception):
    """Base of this package's errors; ``code`` is stable and safe to show."""

    code: ClassVar[str] = "pacs_error"


class InvalidPacsConfigError(PacsError):
    """The file of routes and destinations is missing, is no TOML, or says something impossible."""

    code = "invalid_pacs_config"


class DeliveryError(PacsError):
    """An archive did not take a result; it may the next time."""

    code = "delivery_failed"


class RefusedError(DeliveryError):
    """An archive answered, and does not want the result."""

    code = "delivery_refused"
