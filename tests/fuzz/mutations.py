"""Damage that knows nothing of a format, and what all damage shares: a seeded die and interesting values."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

HEAD_BYTES = 400
"""Where headers are."""
BYTES = (0x00, 0x01, 0x7F, 0x80, 0xFE, 0xFF, 0x20, 0x2F)
WORDS = (0, 1, 2, 0x7F, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
REACH = 2000
"""Longest stretch of bytes that is moved at once."""


@dataclass(frozen=True)
class Damage:
    """The damaged bytes, and what was done to them."""

    data: bytes
    done: str


Mutation = Callable[[bytes, random.Random], Damage]


def place(data: bytes, dice: random.Random) -> int:
    """A position, one in three times in the head."""
    return dice.randrange(min(HEAD_BYTES, len(data)) if dice.random() < 0.3 else len(data))


def put(data: bytes, at: int, value: bytes) -> bytes:
    """``data`` with ``value`` written over it from ``at``; never longer."""
    return (data[:at] + value + data[at + len(value) :])[: len(data)]


def interesting(dice: random.Random, size: int) -> bytes:
    """A value at the edge of something, of ``size`` bytes, in either byte order."""
    value = dice.choice(WORDS) & (1 << 8 * size) - 1
    return value.to_bytes(size, dice.choice(("little", "big")))


def flip(data: bytes, dice: random.Random) -> Damage:
    """Flip one bit, or a few."""
    many, changed = dice.choice((1, 1, 1, 2, 8)), bytearray(data)
    places = [place(data, dice) for _ in range(many)]
    for at in places:
        changed[at] ^= 1 << dice.randrange(8)
    return Damage(bytes(changed), f"bits flipped at {', '.join(map(str, places))}")


def overwrite(data: bytes, dice: random.Random) -> Damage:
    """Write an interesting value of 1 to 8 bytes."""
    at, size = place(data, dice), dice.choice((1, 2, 4, 8))
    value = bytes([dice.choice(BYTES)]) if size == 1 else interesting(dice, size)
    return Damage(put(data, at, value), f"{value.hex()} put at {at}")


def truncate(data: bytes, dice: random.Random) -> Damage:
    """Cut off the end."""
    at = place(data, dice) if dice.random() < 0.7 else max(0, len(data) - dice.randrange(1, 40))
    return Damage(data[:at], f"cut off at {at} of {len(data)}")


def remove(data: bytes, dice: random.Random) -> Damage:
    """Take out a stretch."""
    at, size = place(data, dice), dice.randrange(1, REACH)
    return Damage(data[:at] + data[at + size :], f"{size} bytes taken out at {at}")


def repeat(data: bytes, dice: random.Random) -> Damage:
    """Say a stretch twice."""
    at, size = place(data, dice), dice.randrange(1, REACH)
    return Damage(data[: at + size] + data[at:], f"{size} bytes repeated at {at}")


def insert(data: bytes, dice: random.Random) -> Damage:
    """Put in noise."""
    at, size = place(data, dice), dice.choice((1, 2, 4, 100))
    return Damage(data[:at] + dice.randbytes(size) + data[at:], f"{size} bytes of noise put in at {at}")


def blank(data: bytes, dice: random.Random) -> Damage:
    """Write zeros or ones over a stretch, as a bad sector does."""
    at, size, value = place(data, dice), dice.randrange(1, REACH), dice.choice((b"\0", b"\xff"))
    return Damage(put(data, at, value * size), f"{size} bytes made {value.hex()} at {at}")


def splice(data: bytes, other: bytes, dice: random.Random) -> Damage:
    """Begin as one file and go on as another."""
    at, to = place(data, dice), place(other, dice)
    if dice.random() < 0.3:
        at, to = len(data), 0
    return Damage(data[:at] + other[to:], f"after {at} bytes goes on as another file from its byte {to}")


GENERAL: Sequence[Mutation] = (flip, flip, flip, overwrite, overwrite, truncate, remove, repeat, insert, blank)
