"""Which route a series takes: the first whose patterns all match."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pacs.config import Route

if TYPE_CHECKING:
    from imaging.dicom_identity import Identity


@dataclass(frozen=True)
class Trial:
    """One route tried on one series; ``misses`` are the patterns that do not match, none where it fits."""

    route: Route
    misses: tuple[str, ...]


def find_route(routes: Sequence[Route], identity: Identity, *, sender: str) -> Route | None:
    """The first route that fits; None where none does, and for a series of objects that are no images."""
    if not identity.image:
        return None
    return next((one.route for one in try_routes(routes, identity, sender=sender) if not one.misses), None)


def try_routes(routes: Sequence[Route], identity: Identity, *, sender: str) -> list[Trial]:
    """Every route, and which of its patterns do not match."""
    facts = {
        "modality": identity.modality,
        "body_part": identity.body_part,
        "series_description": identity.series_description,
        "sender": sender,
    }
    return [
        Trial(route, tuple(name for name, value in facts.items() if not _fits(getattr(route, name), value)))
        for route in routes
    ]


def _fits(pattern: str, value: str) -> bool:
    return re.fullmatch(pattern, value, re.IGNORECASE) is not None
