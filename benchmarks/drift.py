"""Is a change of scanner noticed, how soon, and how often is there an alarm without one?

    python -m benchmarks.drift [--data FOLDER] [--json FILE] [--picture FILE]

Uses the shipped hippocampus version as it is: its network, its reference, the monitor's own comparison. The scans are
those of its validation part, which neither weights nor calibration nor reference have seen. A change of scanner is one
kind of damage at one severity on every scan, always in the same direction. Nothing is tuned here: window and level are
the settings' defaults, the limits come from Smirnov's formula.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.drift_picture import draw_delays
from model_store.drift import JOBS_MIN, compare
from model_store.loaded import LoadedVersion, load_version, on_native_grid, prepare
from model_store.reference import Reference
from model_store.registry import SHIPPED, Registry
from nca.engine import get_engine
from nca.ensemble import predict
from nca.quality import dice
from ncagate.settings import Settings
from training.artefacts import CLEAN, Condition, degrade
from training.assess import unseen_cases
from training.data import Case
from training.outcomes import SEED, condition_rng
from training.reference import signals

KINDS = ("gamma", "contrast", "noise", "blur", "anisotropy", "bias")
CHANGES = tuple(Condition(kind, severity) for kind in KINDS for severity in (1, 2, 3))
DIRECTED = frozenset({"gamma", "anisotropy", "bias"})
"""Kinds whose draw is a direction, which a scanner has once for all scans."""
WITHIN = 50
"""Scans after the change within which it is to be noticed."""
STREAMS = 100
"""Simulated orders of the scans per change, each with as many clean ones before."""
SPLITS = 1000
LONG_STREAMS, LONG = 100, 1000
"""Streams of so many jobs, made of nothing but chance."""

Rows = Sequence[dict[str, float]]
console = Console(width=140)


@dataclass(frozen=True)
class Monitor:
    """The monitor over rows in place of jobs."""

    reference: dict[str, Sequence[float]]
    window: int
    alpha: float

    def alarms(self, seen: Rows) -> list[str]:
        """Signals that alarm once these rows have come."""
        found = compare(seen[-self.window :], self.reference, alpha=self.alpha)
        return [one.signal for one in found if one.alarm]

    def first(self, stream: Rows, *, start: int = 0) -> tuple[int, list[str]] | None:
        """After how many rows beyond ``start`` there is an alarm, and of which signals."""
        for end in range(max(start, JOBS_MIN - 1) + 1, len(stream) + 1):
            if found := self.alarms(stream[:end]):
                return end - start, found
        return None


@dataclass(frozen=True)
class Noticed:
    """How a change was noticed over many streams.

    Attributes:
        dice, predicted_dice: mean of the true and the predicted one under the change.
        delays: scans after the change until the alarm, of the streams in which there was one within `WITHIN`.
        first: the signal that most often was the first.
    """

    change: str
    dice: float
    predicted_dice: float
    delays: list[int]
    first: str

    @property
    def share(self) -> float:
        """Of the streams in which it was noticed."""
        return len(self.delays) / STREAMS


def main(arguments: Sequence[str]) -> int:
    """Observe, simulate, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/hippocampus"))
    parser.add_argument("--json", type=Path, default=Path("bench-out/drift.json"))
    parser.add_argument("--picture", type=Path, default=Path("bench-out/drift.png"))
    chosen = parser.parse_args(arguments)
    registry, settings = Registry(SHIPPED, shipped=None), Settings()
    version = load_version(registry, "hippocampus")
    reference = registry.load_reference(version.manifest)
    if reference is None:
        raise SystemExit("the shipped version has no reference")
    cases = unseen_cases(version, chosen.data, calibration=True)
    monitor = Monitor(dict(reference.signals), settings.drift_window, settings.drift_alpha)
    clean, _ = observe(version, cases, Condition(CLEAN))
    alarms = {
        "validation scans, each once, in a random order": of_orders(monitor, clean),
        f"reference and {len(clean)} scans dealt anew from all clean ones": of_splits(monitor, reference, clean),
        f"{LONG} jobs and a reference of independent chance": of_chance(monitor, len(reference.scans)),
    }
    _print_alarms(monitor, alarms)
    noticed = [notice(monitor, version, cases, clean, change) for change in CHANGES]
    _print_noticed(noticed)
    chosen.json.parent.mkdir(parents=True, exist_ok=True)
    results = {"false_alarms": alarms, "noticed": [asdict(one) | {"share": one.share} for one in noticed]}
    chosen.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    draw_delays({one.change: one.delays for one in noticed}, streams=STREAMS, within=WITHIN, picture=chosen.picture)
    return 0


def observe(version: LoadedVersion, cases: Sequence[Case], change: Condition) -> tuple[Rows, list[float]]:
    """Signals and true Dice of every scan under a change, by the real engine with the calibrated ensemble."""
    manifest, rows, dices = version.manifest, [], []
    for case in cases:
        name = "one scanner" if change.kind in DIRECTED else case.name
        rng = condition_rng(name, change, seed=manifest.training.seed)
        volume, truth = degrade(case.volume, case.truth, change, rng=rng)
        prepared = prepare(volume, manifest.preprocessing)
        members = manifest.calibration.members
        predictions = predict(get_engine(), version.network, prepared.image, seed=SEED, members=members)
        result = on_native_grid(prepared, predictions)[-1]
        rows.append(signals(prepared, result.observed, manifest.calibration))
        dices.append(dice(result.mask, np.asarray(truth.any(axis=0))))
    return rows, dices


def of_orders(monitor: Monitor, clean: Rows) -> float:
    """Share of random orders of fresh scans with an alarm at any moment, against the shipped reference."""
    rng = np.random.default_rng(SEED)
    orders = (rng.permutation(len(clean)) for _ in range(SPLITS))
    return float(np.mean([monitor.first([clean[i] for i in order]) is not None for order in orders]))


def of_splits(monitor: Monitor, reference: Reference, clean: Rows) -> float:
    """The same where chance decides as well which scans are the reference."""
    rng = np.random.default_rng(SEED)
    known = [dict(zip(reference.signals, row, strict=True)) for row in zip(*reference.signals.values(), strict=True)]
    scans = [*known, *clean]
    hits = 0
    for _ in range(SPLITS):
        order = rng.permutation(len(scans))
        dealt = [scans[i] for i in order[: len(known)]]
        split = Monitor(
            {name: [row[name] for row in dealt] for name in reference.signals}, monitor.window, monitor.alpha
        )
        hits += split.first([scans[i] for i in order[len(known) :]]) is not None
    return hits / SPLITS


def of_chance(monitor: Monitor, scans: int) -> float:
    """Share of long streams with an alarm, where every signal is drawn by itself: no dependence helps."""
    rng, names, hits = np.random.default_rng(SEED), list(monitor.reference), 0
    for _ in range(LONG_STREAMS):
        drawn = Monitor({name: rng.random(scans).tolist() for name in names}, monitor.window, monitor.alpha)
        stream = [dict(zip(names, row, strict=True)) for row in rng.random((LONG, len(names))).tolist()]
        hits += drawn.first(stream) is not None
    return hits / LONG_STREAMS


def notice(monitor: Monitor, version: LoadedVersion, cases: Sequence[Case], clean: Rows, change: Condition) -> Noticed:
    """Streams of a window of clean scans and then changed ones, drawn with replacement."""
    changed, dices = observe(version, cases, change)
    rng, delays, firsts = np.random.default_rng(SEED), [], Counter[str]()
    for _ in range(STREAMS):
        before = [clean[i] for i in rng.permutation(len(clean))]  # each once: repeats would look like a change
        after = [changed[i] for i in rng.integers(len(changed), size=WITHIN)]
        found = monitor.first([*before, *after], start=len(before))
        if found is not None:
            delays.append(found[0])
            firsts.update(found[1])
    first = firsts.most_common(1)[0][0] if firsts else "-"
    predicted = float(np.mean([row["predicted_dice"] for row in changed]))
    return Noticed(str(change), float(np.mean(dices)), predicted, sorted(delays), first)


def _print_alarms(monitor: Monitor, alarms: dict[str, float]) -> None:
    table = Table("no change", "with a false alarm", title=f"window {monitor.window}, alpha {monitor.alpha:g}")
    for what, share in alarms.items():
        table.add_row(what, f"{share:.1%}")
    console.print(table)


def _print_noticed(noticed: Sequence[Noticed]) -> None:
    title = f"scans after the change until the alarm, {STREAMS} streams each"
    table = Table(
        "change", "Dice", "predicted", f"noticed within {WITHIN}", "median", "latest", "first seen in", title=title
    )
    for one in noticed:
        middle = f"{np.median(one.delays):.0f}" if one.delays else "-"
        latest = str(one.delays[-1]) if one.delays else "-"
        figures = (f"{one.dice:.3f}", f"{one.predicted_dice:.3f}", f"{one.share:.0%}")
        table.add_row(one.change, *figures, middle, latest, one.first)
    console.print(table)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
