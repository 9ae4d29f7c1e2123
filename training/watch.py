"""Being told how a training goes."""

from __future__ import annotations

from collections.abc import Sequence

from training.loop import Report
from training.outcomes import Outcome


class Watch:
    """Told of every iteration and of every fold that was judged; this one does nothing with it."""

    def iterated(self, fold: int, report: Report) -> None:
        """An iteration of a fold (from 0) is done."""

    def judged(self, fold: int, outcomes: Sequence[Outcome]) -> None:
        """A fold's network has seen the scans that were held out from it."""


NOBODY_WATCHES = Watch()
