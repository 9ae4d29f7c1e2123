"""What the model store refuses to do."""

from __future__ import annotations

from typing import ClassVar


class ModelStoreError(Exception):
    """Base of this package's errors; ``code`` is stable and the message safe to show."""

    code: ClassVar[str] = "model_store_error"


class ModelNotFoundError(ModelStoreError):
    """No model of that name."""

    code = "model_not_found"


class VersionNotFoundError(ModelStoreError):
    """The model has no such version or alias."""

    code = "version_not_found"


class CorruptVersionError(ModelStoreError):
    """A version's files do not agree with its manifest, or its manifest cannot be read."""

    code = "version_corrupt"


class VersionExistsError(ModelStoreError):
    """Versions are immutable: this one is there already."""

    code = "version_exists"


class InvalidAliasError(ModelStoreError):
    """The alias has an impossible name, or nothing to roll back to."""

    code = "alias_invalid"
