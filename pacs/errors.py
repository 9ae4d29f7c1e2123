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


class GoneError(RefusedError):
    """The other side does not want this, nor will it ever."""

    code = "delivery_gone"


class WithheldError(PacsError):
    """A result that is not for this archive."""

    code = "delivery_withheld"


class WebhookSecretError(DeliveryError):
    """The file of the secrets that webhooks are signed with cannot be read, or what stands in it is none."""

    code = "webhook_secret_unreadable"


class IdentityKeyError(PacsError):
    """The key that identities are locked with cannot be read, or is none."""

    code = "identity_key_unreadable"


class WrongIdentityKeyError(PacsError):
    """The key is another than that which identities are locked with."""

    code = "identity_key_wrong"


class IdentityUnreadableError(PacsError):
    """What was taken from an object cannot be unlocked."""

    code = "identity_unreadable"


class IdentitiesLockedError(DeliveryError):
    """A result cannot be given back its patient's identity, without which no archive gets it."""

    code = "identities_locked"


class ListenError(PacsError):
    """The address for associations cannot be bound to."""

    code = "listen_failed"
