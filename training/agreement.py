"""Whether an engine of low precision gives the same masks and verdicts as float32."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from model_store.loaded import StructureResult, on_native_grid, prepare
from model_store.manifest import LowPrecision, Preprocessing
from nca.engine import LOW_PRECISION, Engine, choose_engine, get_engine
from nca.ensemble import predict
from nca.errors import EngineUnavailableError
from nca.gate import Gate, Policy, Verdict
from nca.network import Network
from nca.quality import dice
from training.data import Case
from training.outcomes import SEED


def low_precision_agreement(
    network: Network,
    cases: Sequence[Case],
    gates: Sequence[Gate],
    *,
    preprocessing: Preprocessing,
    policy: Policy,
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
        low, exact = (
            _segment(one, network, case, preprocessing=preprocessing, members=gates[0].members) for one in engines
        )
        scores += [dice(a.mask, b.mask) for a, b in zip(low, exact, strict=True)]
        changed += _verdicts(low, gates, policy) != _verdicts(exact, gates, policy)
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
) -> list[StructureResult]:
    prepared = prepare(case.volume, preprocessing)
    return on_native_grid(prepared, predict(engine, network, prepared.image, seed=SEED, members=members))


def _verdicts(results: Sequence[StructureResult], gates: Sequence[Gate], policy: Policy) -> list[Verdict]:
    """On each structure, by the figures of its mask; the input contract sees the same image either way."""
    return [gate.judge(one.observed, policy).verdict for one, gate in zip(results, gates, strict=True)]
