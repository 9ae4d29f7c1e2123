"""Damage real scans and send each to a worker, as a client would.

    python -m tests.fuzz [--count N] [--minutes M] [--seed S] [--only N]

Input N of seed S is always the same: ``--seed S --only N`` makes it again, writes it to runs/fuzz and runs it alone.
The exit status is not zero where a worker died, memory or time had no bound, a job had no proper end, or a damaged file
was taken though its checksum tells.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.fuzz.campaign import VERDICTS, Tally, keep, run_campaign
from tests.fuzz.corpus import load_corpus
from tests.fuzz.inputs import make_input
from tests.fuzz.worker import MIB

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
COUNT = 10_000
TOLD_EVERY = 1000

console = Console()


def main(arguments: Sequence[str]) -> int:
    """Run, print, keep what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--count", type=int, default=COUNT, help="inputs to try")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="time after which no more are tried")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, help="number of the one input to try and to keep")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the real scans")
    parser.add_argument("--out", type=Path, default=Path("runs/fuzz"), help="where offending inputs are kept")
    chosen = parser.parse_args(arguments)
    numbers = range(chosen.count) if chosen.only is None else [chosen.only]
    tally = run_campaign(chosen.data, chosen.seed, numbers, seconds=60 * chosen.minutes, on_outcome=_progress)
    console.print(_refusals(tally), _summary(tally), sep="\n")
    corpus = load_corpus(chosen.data)
    for number in tally.wrong if chosen.only is None else numbers:
        given = make_input(corpus, chosen.seed, number)
        console.print(keep(given, tally.wrong.get(number, ()), chosen.out), given.done, soft_wrap=True)
    for one in tally.violations():
        console.print(one, style="red", soft_wrap=True)
    return 1 if tally.violations() else 0


def _progress(tally: Tally) -> None:
    if tally.tried % TOLD_EVERY == 0:
        console.print(f"{tally.tried} inputs in {tally.seconds / 60:.0f} min, {len(tally.wrong)} of them wrong")


def _refusals(tally: Tally) -> Table:
    table = Table("refused with", "inputs")
    for code, count in tally.ends.most_common():
        if code not in VERDICTS:
            table.add_row(code, str(count))
    return table


def _summary(tally: Tally) -> Table:
    rows = {
        "inputs tried": tally.tried,
        "refused": tally.ends.total() - tally.read,
        "read": tally.read,
        "accepted": tally.ends["accept"],
        "flagged": tally.ends["flag"],
        "worker deaths": tally.deaths,
        "readers that broke down": tally.count("the reader broke down"),
        "memory without bound": tally.count("memory without bound"),
        "wrong accepts": tally.count("wrong accept"),
        "wrong flags": tally.count("wrong flag"),
        "peak memory of a reader": f"{tally.peak_bytes // MIB} MiB",
        "growth of the worker": f"{tally.grown_bytes // MIB} MiB",
        "slowest input": f"{tally.slowest[0]:.1f} s (number {tally.slowest[1]})",
        "inputs per second": f"{tally.tried / tally.seconds:.1f}" if tally.seconds else "",
    }
    table = Table("", "", show_header=False)
    for name, value in rows.items():
        table.add_row(name, str(value))
    return table


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
