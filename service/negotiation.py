"""What the client would like: the Accept header (RFC 9110) and the Prefer header (RFC 7240)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from service.errors import Problem


class Offer(StrEnum):
    """Media types that results come in; POST /segment answers with any of them, the preferred one first."""

    JSON = "application/json"
    GZIP = "application/gzip"
    X_GZIP = "application/x-gzip"
    PNG = "image/png"
    DICOM = "application/dicom"


FILES = {Offer.GZIP: "mask", Offer.X_GZIP: "mask", Offer.PNG: "preview", Offer.DICOM: "segmentation"}
"""Which artefact a media type stands for."""
REPORTS = (Offer.JSON, Offer.DICOM)
"""Media types of a report, the preferred one first."""
MASKS = (Offer.GZIP, Offer.X_GZIP, Offer.DICOM)
"""Media types of a mask, the preferred one first."""

_WAIT = re.compile(r'wait\s*=\s*"?(\d{1,9})"?')


def choose(accept: str | None, offers: Sequence[Offer] = tuple(Offer)) -> Offer:
    """The one of ``offers`` that the Accept header likes best; of equals the first.

    Raises:
        Problem: ``not_acceptable``, none is acceptable.
    """
    ranges = _ranges(accept or "*/*")
    scores = {offer: _quality(offer, ranges) for offer in offers}
    best = max(scores, key=lambda offer: scores[offer])
    if scores[best] <= 0.0:
        raise Problem("not_acceptable", f"on offer: {', '.join(offers)}")
    return best


def accepts(accept: str | None, *offers: str) -> bool:
    """Whether the Accept header takes one of these media types; the parameters of a type are not looked at."""
    ranges = _ranges(accept or "*/*")
    return any(_quality(offer, ranges) > 0.0 for offer in offers)


@dataclass(frozen=True)
class Preference:
    """What Prefer asked for: an asynchronous answer, and for how many seconds to wait for a finished one."""

    respond_async: bool = False
    wait: int | None = None

    def seconds(self, *, longest: float, default: float) -> float:
        """How long to wait: as asked, never longer than ``longest``; ``default`` where nothing was said."""
        if self.wait is None:
            return 0.0 if self.respond_async else min(default, longest)
        return min(self.wait, longest)

    def applied(self, seconds: float) -> dict[str, str]:
        """The Preference-Applied header, if any preference was given."""
        parts = ["respond-async"] if self.respond_async else []
        if self.wait is not None:
            parts.append(f"wait={int(seconds)}")
        return {"Preference-Applied": ", ".join(parts)} if parts else {}


def preference(headers: Iterable[str]) -> Preference:
    """Read the Prefer headers; what we do not know is ignored, as RFC 7240 asks."""
    wishes = [wish.split(";")[0].strip().lower() for line in headers for wish in line.split(",")]
    waits = [int(match[1]) for match in map(_WAIT.fullmatch, wishes) if match]
    return Preference("respond-async" in wishes, waits[0] if waits else None)


def _ranges(accept: str) -> list[tuple[str, float]]:
    ranges = []
    for part in accept.split(","):
        media, *parameters = (piece.strip().lower() for piece in part.split(";"))
        weights = [one.partition("=")[2] for one in parameters if one.startswith("q=")]
        ranges.append((media, _weight(weights)))
    return ranges


def _weight(values: Sequence[str]) -> float:
    try:
        return float(values[0]) if values else 1.0
    except ValueError:
        return 0.0


def _quality(offer: str, ranges: Sequence[tuple[str, float]]) -> float:
    """Weight of the most specific range that covers the offer."""
    family = offer.split("/")[0] + "/*"
    for pattern in (str(offer), family, "*/*"):
        weights = [weight for media, weight in ranges if media == pattern]
        if weights:
            return max(weights)
    return 0.0
