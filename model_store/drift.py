"""Do a window of jobs and the reference come from one distribution? Two-sample Kolmogorov-Smirnov, signal by signal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log, sqrt

import numpy as np
from numpy.typing import NDArray

JOBS_MIN = 10
"""With fewer values nothing is said of a signal."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class SignalDrift:
    """One signal of a window against the reference.

    Attributes:
        jobs: values in the window.
        ks: Kolmogorov-Smirnov statistic, the largest distance between the two distribution functions.
        limit: what it has to stay below.
        median, reference_median: None where most values are undefined.
    """

    signal: str
    jobs: int
    ks: float
    limit: float
    median: float | None
    reference_median: float | None

    @property
    def alarm(self) -> bool:
        """Whether the distance is beyond what chance explains."""
        return self.ks >= self.limit


def compare(
    window: Sequence[Mapping[str, float]], reference: Mapping[str, Sequence[float]], *, alpha: float
) -> tuple[SignalDrift, ...]:
    """Every signal of the reference that at least `JOBS_MIN` jobs of the window have.

    ``alpha`` bounds the chance that any signal alarms while nothing has changed: each is tested at its share of it
    (Bonferroni), which holds however the signals depend on each other.
    """
    share = alpha / max(1, len(reference))
    found = []
    for signal, expected in reference.items():
        seen = [one[signal] for one in window if signal in one]
        if len(seen) >= JOBS_MIN:
            values, known = np.sort(np.array(seen)), np.sort(np.array(expected))
            limit = ks_limit(len(values), len(known), alpha=share)
            medians = (_median(values), _median(known))
            found.append(SignalDrift(signal, len(values), ks_statistic(values, known), limit, *medians))
    return tuple(found)


def ks_statistic(one: Floats, other: Floats) -> float:
    """Largest distance between the empirical distribution functions of two sorted samples; infinities have a place."""
    places = np.concatenate([one, other])
    shares = (np.searchsorted(sample, places, side="right") / len(sample) for sample in (one, other))
    return float(np.abs(np.subtract(*shares)).max())


def ks_limit(one: int, other: int, *, alpha: float) -> float:
    """The statistic that samples of these sizes from one distribution reach with a chance of at most ``alpha``.

    Smirnov's asymptotic tail, 2 exp(-2 d^2 mn / (m + n)), which for finite samples and for ties errs on the side of
    fewer alarms (`tests/model_store/test_drift.py`). It depends on no distribution, so nothing is tuned.
    """
    return sqrt(log(2 / alpha) / 2 * (one + other) / (one * other))


def _median(values: Floats) -> float | None:
    middle = float(values[len(values) // 2])
    return middle if np.isfinite(middle) else None
