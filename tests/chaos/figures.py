"""What a run of the suite comes to, for people to read."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tests.chaos.ledger import Findings

WIDTH = 62


@dataclass
class Figures:
    """Sums over all stacks and schedules."""

    faults: Counter[str] = field(default_factory=Counter)
    recoveries: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    jobs: int = 0
    wrong: Counter[str] = field(default_factory=Counter)

    def add(self, findings: Findings) -> None:
        """Count what is wrong."""
        for name, jobs in vars(findings).items():
            self.wrong[name] += len(jobs)

    def recovered(self, kind: str, seconds: float) -> None:
        """A fault of this kind was made, and so long after it the first job succeeded."""
        self.faults[kind] += 1
        self.recoveries[kind].append(seconds)

    def lines(self) -> Iterator[str]:
        """The table: faults by kind with the time to recovery, then the sums."""
        yield "Seconds from each fault to the first success after it."
        yield f"{'fault':<{WIDTH}}{'times':>6}{'median':>9}{'p95':>7}{'max':>7}"
        for kind, times in sorted(self.faults.items()):
            yield f"{kind:<{WIDTH}}{times:>6}{_row(self.recoveries[kind])}"
        everything = [one for some in self.recoveries.values() for one in some]
        yield f"{'all':<{WIDTH}}{self.faults.total():>6}{_row(everything)}"
        wrong = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in self.wrong.items())
        yield f"{self.faults.total():,} faults injected into {self.jobs:,} jobs: {wrong}"


def _row(seconds: Sequence[float]) -> str:
    ordered = sorted(seconds)
    places = (0.5, 0.95, 1.0)
    shown = [ordered[min(int(share * len(ordered)), len(ordered) - 1)] for share in places] if ordered else []
    return "  " + "".join(f"{one:>7.2f}" for one in shown)
