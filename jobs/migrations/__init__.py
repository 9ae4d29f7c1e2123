"""Alembic migrations of the jobs tables; `jobs.database.upgrade` runs them."""

from __future__ import annotations

from pathlib import Path


def newest() -> str:
    """The newest revision: the files of ``versions`` are named r<revision>_<what>.py."""
    return max(path.stem[1:5] for path in (Path(__file__).parent / "versions").glob("r*.py"))
