"""Secrets, which stand in files and never in the configuration."""

from __future__ import annotations

from pathlib import Path

from pacs.errors import DeliveryError


def read_secret(path: Path) -> str:
    """A password or token from its file, without what surrounds it.

    Raises:
        DeliveryError: it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise DeliveryError(f"the secret cannot be read: {type(error).__name__}") from error
