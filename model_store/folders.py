"""The folders of a store: names that may be one, and files that are no larger than they should be."""

from __future__ import annotations

import errno
import re
from pathlib import Path

from model_store.manifest import NAME_PATTERN


def is_name(text: str) -> bool:
    """Whether a model or a version can be called so."""
    return re.fullmatch(NAME_PATTERN, text) is not None


def checked(name: str, error: type[Exception]) -> str:
    """The name, if it can be one: what comes from a URL never leaves the store's folder."""
    if not is_name(name):
        raise error(f"{name[:64]!r} cannot be a name here")
    return name


def folders(parent: Path) -> list[Path]:
    """Folders with a proper name; what is being written starts with a dot and is not one of them."""
    if not parent.is_dir():
        return []
    return [one for one in parent.iterdir() if one.is_dir() and is_name(one.name)]


def read(path: Path, bytes_max: int) -> bytes:
    """A file's content.

    Raises:
        OSError: it cannot be read, or is larger than ``bytes_max``.
    """
    with path.open("rb") as file:
        data = file.read(bytes_max + 1)
    if len(data) > bytes_max:
        raise OSError(errno.EFBIG, "the file is too large to be what it should be")
    return data
