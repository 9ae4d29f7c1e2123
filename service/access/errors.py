"""What this package refuses at the command line or at the start; what it answers to requests are `service.errors`."""

from __future__ import annotations

from typing import ClassVar


class AccessError(Exception):
    """Base of this package's errors; ``code`` is stable."""

    code: ClassVar[str] = "access_error"


class InvalidClientNameError(AccessError):
    """The name cannot be a client's."""

    code = "invalid_client_name"


class InvalidCertificateError(AccessError):
    """The file holds no certificate, or one that stands for a key already."""

    code = "invalid_certificate"


class UnknownKeyError(AccessError):
    """There is no such key in force."""

    code = "key_not_found"


class InvalidAccessError(AccessError):
    """The settings of access contradict one another, or would let anybody in."""

    code = "invalid_access"
