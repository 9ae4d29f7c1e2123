"""What one side tells the other of an object that was sent: C-STORE statuses (DICOM part 4, table B.2-1; part 7, annex
C), which STOW-RS has as failure reasons (part 18, I.2.2); and of a whole request, by HTTP."""

from __future__ import annotations

TRANSIENT = frozenset({408, 425, 429})
"""Refusals of HTTP that pass."""
SERVER_ERRORS = 500
"""From here on HTTP's statuses are no refusals."""

SUCCESS = 0x0000
DUPLICATE = 0x0111
"""The object is there already. From an archive that gets a result, that is what we want."""
OUT_OF_RESOURCES = 0xA700
OTHER_OBJECT = 0xA900
CANNOT_UNDERSTAND = 0xC000
OTHER_STUDY = 0xC409
"""The address named another study."""


def out_of_resources(code: int) -> bool:
    """Whether there was no room, which may pass."""
    return 0xA700 <= code < 0xA800


def stored(code: int) -> bool:
    """Whether the object is there, with a warning or without."""
    return code in (SUCCESS, DUPLICATE) or 0xB000 <= code < 0xC000


def passes(status: int) -> bool:
    """Whether an HTTP status tells of trouble that may be over the next time."""
    return status in TRANSIENT or status >= SERVER_ERRORS
