"""Input number N of a seed: always the same bytes, whatever was made before it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from tests.fuzz.containers import kind_of, unpack, zip_entries
from tests.fuzz.corpus import Scan, gzipped, zipped
from tests.fuzz.formats import known
from tests.fuzz.mutations import GENERAL, splice

INNER = 0.45
"""How often damage is done to what a container holds, which is then packed again, whole."""
KNOWING = 0.4
"""How often the format is known to the damage."""
SPLICED = 0.06
TIMES = (1, 1, 1, 1, 2, 3)
"""How often a file is damaged."""


@dataclass(frozen=True)
class Input:
    """What is sent to a worker.

    ``undamaged`` are the scans of which one must be what the files hold, if they can be read at all: where what was
    damaged has a checksum. Where it has none, nothing is known of what may be read.
    """

    seed: int
    number: int
    files: tuple[bytes, ...]
    done: str
    undamaged: tuple[Scan, ...]


def make_input(corpus: Sequence[Scan], seed: int, number: int) -> Input:
    """The input of this name."""
    dice = random.Random(f"{seed}/{number}")
    scan, other = dice.choice(corpus), dice.choice(corpus)
    files = list(scan.files)
    index = dice.randrange(len(files))
    files[index], done, told = _damaged(files[index], dice.choice(other.files), dice)
    if len(files) > 1 and dice.random() < 0.1:
        files, done, told = _reordered(files, dice), f"{done}; files missing or twice", False
    return Input(seed, number, tuple(files), f"{scan.name}: {done}", (scan, other) if told else ())


def _damaged(data: bytes, other: bytes, dice: random.Random) -> tuple[bytes, str, bool]:
    """The damaged file, what was done, and whether a checksum tells."""
    kind = kind_of(data)
    if kind is not None and dice.random() < INNER:
        return _within(data, kind, other, dice)
    if dice.random() < SPLICED:
        damage = splice(data, other, dice)
        return damage.data, damage.done, kind is not None
    done = []
    for _ in range(dice.choice(TIMES)):
        if len(data) < 400:  # nothing to know anything of
            break
        damage = dice.choice(known(data) if dice.random() < KNOWING else GENERAL)(data, dice)
        data = damage.data
        done.append(damage.done)
    return data, "; ".join(done), kind is not None


def _within(data: bytes, kind: str, other: bytes, dice: random.Random) -> tuple[bytes, str, bool]:
    """A whole container of which something inside was damaged."""
    if kind == "gzip":
        inner, done, told = _damaged(unpack(data)[0], other, dice)
        return gzipped(inner), f"inside, {done}", told
    entries = zip_entries(data)
    index = dice.randrange(len(entries))
    inner, done, told = _damaged(entries[index][1], other, dice)
    entries[index] = (entries[index][0], inner)
    return zipped(entries), f"inside, {done}", told


def _reordered(files: list[bytes], dice: random.Random) -> list[bytes]:
    dice.shuffle(files)
    return files[1:] if dice.random() < 0.5 else [*files, files[0]]
