from __future__ import annotations

import numpy as np

from benchmarks.drift import Monitor

RNG = np.random.default_rng(0)
MONITOR = Monitor({"nqm": RNG.random(145).tolist()}, window=50, alpha=0.001)


def rows(count: int, *, shift: float = 0.0) -> list[dict[str, float]]:
    return [{"nqm": value} for value in (RNG.random(count) + shift).tolist()]


class TestMonitor:
    def test_counts_the_scans_after_the_change(self) -> None:
        found = MONITOR.first([*rows(50), *rows(50, shift=2.0)], start=50)
        assert found is not None
        assert 10 < found[0] < 25
        assert found[1] == ["nqm"]

    def test_finds_nothing_where_nothing_changed(self) -> None:
        assert MONITOR.first(rows(200)) is None
