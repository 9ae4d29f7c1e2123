"""What inference costs: every engine against the published implementation and against the machine's limits.

    python -m benchmarks.engine [--json FILE] [--quick] [--threads N]

Sides are run in turn, in one run on one machine. Slow engines run a part of the steps, members or voxels; their
rows say so (``extrapolated``). Writes a JSON list of rows, and roofline.png and scaling.png beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from rich.console import Console

from benchmarks.cases import cases
from benchmarks.comparison import compare
from benchmarks.engines import COMPILED, NATIVE, PUBLISHED, TORCH, available
from benchmarks.hotloop import hot_loop_rows
from benchmarks.pictures import draw_roofline, draw_scaling
from benchmarks.rows import Row
from benchmarks.scaling import SCALING, scaling_rows
from benchmarks.tables import case_table, loop_table, roofs_line, scaling_lines

COMPARED = (PUBLISHED, TORCH, COMPILED, *NATIVE)
QUICKLY_COMPARED = (PUBLISHED, TORCH, *NATIVE)
"""Compiling alone takes longer than a quick run may."""

console = Console(width=140)


def main(arguments: Sequence[str]) -> int:
    """Measure, print, write JSON and pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, default=Path("bench-out/engine.json"))
    parser.add_argument("--quick", action="store_true", help="tiny scans, one round: for tests, no figures")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    chosen = parser.parse_args(arguments)
    chosen.json.parent.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    rows: list[Row] = []
    for name, measure in _parts(threads=chosen.threads, quick=chosen.quick).items():
        console.print(f"[dim]measuring {name}")
        rows += measure()
    chosen.json.write_text(json.dumps([row.as_json() for row in rows], indent=2) + "\n", encoding="utf-8")
    draw_roofline(rows, picture=chosen.json.with_name("roofline.png"))
    draw_scaling(rows, picture=chosen.json.with_name("scaling.png"))
    _print(rows)
    console.print(f"{time.monotonic() - start:.0f} s in all; rows and pictures are in {chosen.json.parent.absolute()}")
    return 0


def _parts(*, threads: int, quick: bool) -> dict[str, Callable[[], list[Row]]]:
    """What is measured, by name."""
    engines = available(QUICKLY_COMPARED if quick else COMPARED, threads=threads)
    numbers = sorted({1, threads})
    return {
        **{case.name: partial(compare, case, engines, threads=threads, quick=quick) for case in cases(quick=quick)},
        "single steps": partial(hot_loop_rows, numbers, quick=quick),
        "scaling": partial(scaling_rows, numbers, quick=quick),
    }


def _print(rows: Sequence[Row]) -> None:
    console.print(roofs_line(rows))
    compared = [row for row in rows if row.ratio_to_published is not None]
    console.print(case_table(compared))
    console.print(loop_table([row for row in rows if row not in compared and not row.case.startswith(SCALING)]))
    console.print(*scaling_lines(rows), sep="\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
