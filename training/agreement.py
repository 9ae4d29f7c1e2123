"""Whether an engine of low precision gives the same masks and verdicts as float32."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from model_store.loaded import SegmentResult, on_native_grid, prepare
from model_store.manifest import LowPrecision, Preprocessing
from nca.engine import LOW_PRECISION, Engine, choose_engine, get_engine
from nca.ensemble import predict
from nca.errors import EngineUnavailableError
from nca.network import Network
from nca.quality import Evidence, dice, judge
from training.data import Case
from training.evaluate import Gate
from training.judged import SEED


def low_precision_agreement(
    network: Network,
    cases: Sequence[Case],
    gate: Gate,
    *,
    preprocessing: Preprocessing,
    members: int,
    on_case: Callable[[], None] = lambda: None,
) -> LowPrecision | None:
    """Segment every scan in both precisions and compare; None where this machine has no low precision."""
    try:
        choose_engine(LOW_PRECISION)
    except EngineUnavailableError:
        return None
    engines = get_engine(LOW_PRECISION), get_engine(LOW_PRECISION).exact()
    scores: list[float] = []
    changed = 0
    for case in cases:
        low, exact = (_segment(one, network, case, preprocessing=preprocessing, members=members) for one in engines)
        scores += [dice(a.mask, b.mask) for a, b in zip(low, exact, strict=True)]
        changed += _flags(low, gate) != _flags(exact, gate)
        on_case()
    return LowPrecision(
        engine=LOW_PRECISION,
        scans=len(cases),
        dice_mean=float(np.mean(scores)),
        dice_min=float(np.min(scores)),
        verdicts_changed=changed,
    )


def _segment(
    engine: Engine, network: Network, case: Case, *, preprocessing: Preprocessing, members: int
) -> list[SegmentResult]:
    prepared = prepare(case.volume, preprocessing)
    return on_native_grid(prepared, predict(engine, network, prepared.image, seed=SEED, members=members))


def _flags(results: Sequence[SegmentResult], gate: Gate) -> list[bool]:
    """The verdict on each segment by the figures of the mask; the input contract sees the same image either way."""
    return [
        judge(
            Evidence(one.prediction.nqm, one.prediction.finite, one.volume_ml, one.prediction.members),
            lines=gate.lines,
            volume_ml_range=plausible,
            min_dice=gate.min_dice,
        ).verdict
        == "flag"
        for one, plausible in zip(results, gate.volume_ml, strict=True)
    ]
