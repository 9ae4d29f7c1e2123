"""Running totals of finished jobs, added to in the very transaction that finishes them.

The metrics page is drawn from these rows, so they are the same from every gateway, count a job exactly once,
and outlive its erasure.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, select
from sqlalchemy.dialects import postgresql, sqlite

from jobs.models import Tally

SECONDS = (
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
    120.0,
    300.0,
    600.0,
    1800.0,
    3600.0,
)
NQM = (0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.125, 0.15, 0.175, 0.2, 0.25, 0.3, 0.4, 0.5, 1.0)
DICE = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.825, 0.85, 0.875, 0.9, 0.925, 0.95, 1.0)

HISTOGRAMS: dict[str, tuple[float, ...]] = {
    "queue_wait_seconds": SECONDS,
    "stage_duration_seconds": SECONDS,
    "nqm": NQM,
    "predicted_dice": DICE,
}
"""Upper bounds of each histogram's buckets; one more, +Inf, takes the rest."""
LATEST = "last_success_timestamp_seconds"
"""The one total that is replaced, not added to."""


class Cause(StrEnum):
    """Why a job went back into the queue."""

    WORKER_LOST = "worker_lost"  # its lease ran out
    WORKER_STOPPED = "worker_stopped"  # told to stop, the worker handed it back
    BROKE = "broke"  # the program itself
    STORAGE_AWAY = "storage_away"  # the bucket does not answer


_Key = tuple[str, str, str]


@dataclass
class Observations:
    """What one change of state adds to the totals."""

    totals: defaultdict[_Key, float] = field(default_factory=lambda: defaultdict(float))

    def count(self, name: str, *labels: str, times: int = 1) -> Observations:
        """Add to a counter."""
        self.totals[name, json.dumps(labels), ""] += times
        return self

    def observe(self, name: str, value: float | None, *labels: str) -> Observations:
        """Put a value into a histogram; None is not observed."""
        if value is not None:
            bounds, label = HISTOGRAMS[name], json.dumps(labels)
            place = bisect_left(bounds, value)
            self.totals[name, label, str(bounds[place]) if place < len(bounds) else "+Inf"] += 1
            self.totals[name, label, "sum"] += value
        return self

    def write(self, connection: Connection) -> None:
        """Add to the rows, in one statement and in key order so that two writers never deadlock."""
        if self.totals:
            _upsert(connection, dict(sorted(self.totals.items())), replace=False)


def claimed(priority: str, waited_s: float) -> Observations:
    """An attempt began at a job that had waited in the queue."""
    return Observations().count("attempts_total").observe("queue_wait_seconds", max(waited_s, 0.0), priority)


def retried(cause: Cause, *, times: int = 1) -> Observations:
    """Jobs went back into the queue after an attempt that did not end them."""
    return Observations().count("retries_total", cause, times=times)


def ended(outcome: str, code: str = "", *, times: int = 1) -> Observations:
    """Jobs reached a final state; ``code`` says why they failed."""
    return Observations().count("jobs_total", outcome, code, times=times)


def succeeded(result: Mapping[str, Any]) -> Observations:
    """A job produced this result record."""
    version = str(result.get("model", "")), str(result.get("version", ""))
    seen = ended("succeeded").count("verdicts_total", *version, str(result.get("verdict", "")))
    for code in {str(reason["code"]) for reason in result.get("reasons") or ()}:  # of several structures, once
        seen.count("flag_reasons_total", *version, code)
    seen.observe("nqm", result.get("nqm"), *version).observe("predicted_dice", result.get("predicted_dice"), *version)
    for stage, seconds in dict(result.get("stage_seconds") or {}).items():
        seen.observe("stage_duration_seconds", seconds, stage)
    return seen


def stamp_success(connection: Connection, now: float) -> None:
    """Remember when a job last succeeded."""
    _upsert(connection, {(LATEST, "[]", ""): now}, replace=True)


@dataclass(frozen=True)
class Histogram:
    """One labelled histogram: cumulative counts per upper bound, ending with +Inf, and the sum."""

    buckets: tuple[tuple[str, float], ...]
    total: float


@dataclass(frozen=True)
class Totals:
    """All totals, by metric name and label values."""

    counters: dict[str, dict[tuple[str, ...], float]]
    histograms: dict[str, dict[tuple[str, ...], Histogram]]


def read_totals(connection: Connection) -> Totals:
    """Every total, histograms made cumulative."""
    counters: dict[str, dict[tuple[str, ...], float]] = {}
    parts: dict[str, dict[tuple[str, ...], dict[str, float]]] = {name: {} for name in HISTOGRAMS}
    for row in connection.execute(select(Tally.name, Tally.labels, Tally.bucket, Tally.value)):
        labels = tuple(json.loads(row.labels))
        if row.name in parts:
            parts[row.name].setdefault(labels, {})[row.bucket] = row.value
        else:
            counters.setdefault(row.name, {})[labels] = row.value
    histograms = {
        name: {labels: _cumulate(HISTOGRAMS[name], counts) for labels, counts in by_labels.items()}
        for name, by_labels in parts.items()
    }
    return Totals(counters=counters, histograms=histograms)


def _cumulate(bounds: Iterable[float], counts: Mapping[str, float]) -> Histogram:
    running, buckets = 0.0, []
    for bound in (*map(str, bounds), "+Inf"):
        running += counts.get(bound, 0.0)
        buckets.append((bound, running))
    return Histogram(tuple(buckets), counts.get("sum", 0.0))


def _upsert(connection: Connection, values: Mapping[_Key, float], *, replace: bool) -> None:
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    rows = [
        {"name": name, "labels": labels, "bucket": bucket, "value": float(value)}
        for (name, labels, bucket), value in values.items()
    ]
    insert = dialect.insert(Tally).values(rows)
    new = insert.excluded.value if replace else Tally.value + insert.excluded.value
    connection.execute(insert.on_conflict_do_update(index_elements=["name", "labels", "bucket"], set_={"value": new}))
