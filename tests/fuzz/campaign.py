"""Many inputs through one worker, watched from a process of its own: a worker that dies is counted and replaced."""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tests.fuzz.corpus import load_corpus
from tests.fuzz.inputs import Input, make_input
from tests.fuzz.worker import GROWTH_BYTES, MIB, Outcome, Worker

HUNG_S = 120.0
"""A worker that says nothing for so long hangs: reading is stopped after 20 s, and no scan here takes long."""
WARM = 50
"""Inputs after which a worker has loaded what it ever loads."""
VERDICTS = ("accept", "flag")


@dataclass
class Tally:
    """What became of all inputs."""

    ends: Counter[str] = field(default_factory=Counter)
    wrong: dict[int, tuple[str, ...]] = field(default_factory=dict)
    pids: set[int] = field(default_factory=set)
    deaths: int = 0
    peak_bytes: int = 0
    slowest: tuple[float, int] = (0.0, 0)
    seconds: float = 0.0
    memory: list[int] = field(default_factory=list)

    @property
    def tried(self) -> int:
        """Inputs that ended, or ended the worker."""
        return self.ends.total() + self.deaths

    @property
    def read(self) -> int:
        """Inputs that had a verdict."""
        return sum(self.ends[one] for one in VERDICTS)

    @property
    def grown_bytes(self) -> int:
        """How much more memory the worker had at its end than when it was warm."""
        warm = self.memory[WARM : 2 * WARM]
        return max(self.memory[-WARM:]) - max(warm) if warm else 0

    def count(self, word: str) -> int:
        """Inputs of which something that begins so is wrong."""
        return sum(any(one.startswith(word) for one in wrong) for wrong in self.wrong.values())

    def add(self, outcome: Outcome) -> None:
        """Note an outcome."""
        self.ends[outcome.end] += 1
        self.pids.add(outcome.pid)
        self.peak_bytes = max(self.peak_bytes, outcome.peak_bytes)
        self.slowest = max(self.slowest, (outcome.seconds, outcome.number))
        self.memory.append(outcome.worker_bytes)
        if outcome.wrong:
            self.wrong[outcome.number] = outcome.wrong

    def died(self, number: int, how: str) -> None:
        """Note that the worker ended on an input."""
        self.deaths += 1
        self.memory.clear()
        self.wrong[number] = (f"worker death: {how}",)

    def violations(self) -> list[str]:
        """Everything that must not be; empty is good."""
        found = [f"input {number}: {'; '.join(wrong)}" for number, wrong in sorted(self.wrong.items())]
        if self.grown_bytes > GROWTH_BYTES:
            found.append(f"the worker grew by {self.grown_bytes // MIB} MiB")
        return found


def run_campaign(
    data: Path,
    seed: int,
    numbers: Sequence[int],
    *,
    seconds: float = float("inf"),
    on_outcome: Callable[[Tally], object] = lambda tally: None,
) -> Tally:
    """Send these inputs of a seed, as many as fit into the time, and say what became of them."""
    tally, start, left = Tally(), time.monotonic(), list(numbers)
    while left and time.monotonic() - start < seconds:
        with _worker(data, seed, left) as (process, answers):
            if _next(answers) is None:
                raise RuntimeError("the worker does not start")
            while left and time.monotonic() - start < seconds:
                outcome = _next(answers)
                if outcome is None:
                    process.join(1)
                    how = f"it hung for {HUNG_S:.0f} s" if process.is_alive() else f"exit status {process.exitcode}"
                    tally.died(left.pop(0), how)
                    break
                left.pop(0)
                tally.add(outcome)
                tally.seconds = time.monotonic() - start
                on_outcome(tally)
    return tally


def _next(answers: Connection[Any, Any]) -> Any:
    """What the worker says next; None where it died or hangs."""
    try:
        return answers.recv() if answers.poll(HUNG_S) else None
    except EOFError:
        return None


@contextmanager
def _worker(data: Path, seed: int, numbers: Sequence[int]) -> Any:
    """A worker process and what it says; it ends with this."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    with tempfile.TemporaryDirectory(prefix="ncagate-fuzz-", ignore_cleanup_errors=True) as folder:
        process = context.Process(target=_work, args=(theirs, data, seed, list(numbers), Path(folder)))
        process.start()
        theirs.close()
        try:
            yield process, ours
        finally:
            process.terminate()
            process.join()
            ours.close()


def _work(answers: Connection[Any, Any], data: Path, seed: int, numbers: list[int], folder: Path) -> None:
    corpus = load_corpus(data)
    with Worker(folder) as worker:
        answers.send("ready")
        for number in numbers:
            answers.send(worker.run(make_input(corpus, seed, number)))


def keep(given: Input, wrong: Sequence[str], folder: Path) -> Path:
    """Write an offending input, its files and what is wrong, and return where."""
    home = folder / f"{given.seed}-{given.number}"
    home.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(given.files):
        (home / f"{number:04}").write_bytes(data)
    (home / "why.txt").write_text("\n".join((given.done, *wrong)) + "\n", encoding="utf-8")
    return home
