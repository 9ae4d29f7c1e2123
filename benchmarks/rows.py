"""One line of the results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.roofs import Roofs
from benchmarks.work import Work


@dataclass(frozen=True)
class Row:
    """What one engine took for one case.

    Attributes:
        ms: milliseconds for all ``members`` (for "interior" and "border" rows of one step).
        voxel_steps_per_s: voxels times steps a second, over all levels and members.
        ratio_to_published: how many times the published implementation takes, in the same run.
        flops_per_s, flops_per_byte: floating point operations of cells that fired (a multiply-add is two).
        multiply_adds_peak_per_s, bytes_peak_per_s: the machine's peaks, measured in turn with the engine.
        fma_peak_share, bandwidth_share: of these peaks.
        peak_rss_mb: peak resident memory of a process of its own.
        extrapolated: whether only a part was run.
        further: what only some rows have.
    """

    case: str
    engine: str
    members: int
    threads: int
    ms: float
    voxel_steps_per_s: float
    flops_per_s: float
    flops_per_byte: float
    multiply_adds_peak_per_s: float | None
    bytes_peak_per_s: float | None
    fma_peak_share: float | None
    bandwidth_share: float | None
    ratio_to_published: float | None = None
    peak_rss_mb: float | None = None
    extrapolated: bool = False
    further: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """All of it, flat."""
        values: dict[str, Any] = asdict(self)
        further: dict[str, Any] = values.pop("further")
        return values | further


def make_row(
    case: str, engine: str, *, work: Work, seconds: float, roofs: Roofs, members: int, threads: int, **further: Any
) -> Row:
    """The row of ``work`` done in ``seconds`` on a machine with these peaks."""
    return Row(
        case=case,
        engine=engine,
        members=members,
        threads=threads,
        ms=seconds * 1000,
        voxel_steps_per_s=work.voxel_steps / seconds,
        flops_per_s=2 * work.multiply_adds / seconds,
        flops_per_byte=work.intensity,
        multiply_adds_peak_per_s=roofs.multiply_adds_per_s,
        bytes_peak_per_s=roofs.bytes_per_s,
        fma_peak_share=_share(work.multiply_adds / seconds, roofs.multiply_adds_per_s),
        bandwidth_share=_share(work.bytes / seconds, roofs.bytes_per_s),
        further=further,
    )


def best_roofs(rows: Sequence[Row]) -> Roofs:
    """The highest peaks measured for the first row's number of threads."""
    threads = rows[0].threads
    peaks = [(row.multiply_adds_peak_per_s, row.bytes_peak_per_s) for row in rows if row.threads == threads]
    best = [max((one for one in column if one is not None), default=None) for column in zip(*peaks, strict=True)]
    return Roofs(*best)


def _share(achieved: float, peak: float | None) -> float | None:
    return achieved / peak if peak else None
