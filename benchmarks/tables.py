"""The rows as people read them."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Column, Table

from benchmarks.hotloop import BORDER_GOAL
from benchmarks.rows import Row, best_roofs
from benchmarks.scaling import SCALING_FIT


def roofs_line(rows: Sequence[Row]) -> str:
    """The best that the machine was seen to do with all threads."""
    threads, roofs = rows[0].threads, best_roofs(rows)
    if roofs.multiply_adds_per_s is None or roofs.bytes_per_s is None:
        return f"{threads} threads; the machine's peaks are unknown, the native engine is not built here"
    return (
        f"{threads} threads; highest measured peaks: {roofs.multiply_adds_per_s / 1e9:.0f} G multiply-adds a second, "
        f"{roofs.bytes_per_s / 1e9:.0f} GB/s of memory"
    )


def case_table(rows: Sequence[Row]) -> Table:
    """Every engine on every case."""
    table = _table(
        "scan", "engine", "time", "M voxel-steps/s", "× published", "FMA peak", "bandwidth", "peak MB", "timed"
    )
    table.title = f"{rows[0].members} members"
    table.caption = (
        "~ extrapolated, linearly in steps, members and voxels, from what was timed; peaks are float32, taken in turn"
    )
    for before, row in zip([None, *rows], rows, strict=False):
        about = "~" if row.extrapolated else ""
        table.add_row(
            "" if before is not None and before.case == row.case else row.case,
            row.engine,
            about + _time(row.ms),
            f"{row.voxel_steps_per_s / 1e6:.1f}",
            f"{row.ratio_to_published:.1f}" if row.ratio_to_published else "",
            _percent(row.fma_peak_share),
            _percent(row.bandwidth_share),
            f"{row.peak_rss_mb:.0f}" if row.peak_rss_mb else "",
            _part(row),
        )
    return table


def loop_table(rows: Sequence[Row]) -> Table:
    """Single steps in the hot loop."""
    border = f"border a voxel / interior (goal below {BORDER_GOAL:.0f})"
    table = _table("one step", "engine", "threads", "ms", "M voxel-steps/s", "FMA peak", "bandwidth", border)
    for row in rows:
        ratio = row.further.get("border_ratio")
        table.add_row(
            row.case,
            row.engine,
            str(row.threads),
            f"{row.ms:.2f}",
            f"{row.voxel_steps_per_s / 1e6:.1f}",
            _percent(row.fma_peak_share),
            _percent(row.bandwidth_share),
            f"{ratio:.2f}" if ratio else "",
        )
    return table


def scaling_lines(rows: Sequence[Row]) -> list[str]:
    """The fitted lines in words."""
    return [
        f"scaling, {row.engine}, {row.threads} threads: {row.further['ms_per_million_voxel_steps']:.1f} ms a million "
        f"voxel-steps (R^2 {row.further['r_squared']:.4f}); time ~ voxel-steps^{row.further['exponent']:.3f} "
        f"(R^2 {row.further['exponent_r_squared']:.4f})"
        for row in rows
        if row.case == SCALING_FIT
    ]


def _table(*columns: str) -> Table:
    """The first two columns are names, the others figures."""
    names, figures = columns[:2], columns[2:]
    return Table(*names, *(Column(one, justify="right") for one in figures), box=None)


def _time(ms: float) -> str:
    return f"{ms / 1000:.1f} s" if ms >= 1000 else f"{ms:.1f} ms"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def _part(row: Row) -> str:
    """What was really run, as far as it is not the whole."""
    run, parts = row.further, []
    if run["steps_timed"] != run["steps"]:
        parts.append("+".join(map(str, run["steps_timed"])) + " steps")
    if run["grid_timed"] != run["grid"]:
        parts.append("×".join(map(str, run["grid_timed"])))
    if run["members_timed"] != row.members:
        parts.append(f"{run['members_timed']} member" + "s" * (run["members_timed"] > 1))
    return ", ".join(parts) or "all"
