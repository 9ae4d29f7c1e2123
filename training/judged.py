"""What an ensemble makes of a labelled scan, for every size of the ensemble at once."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from imaging.volume import Volume
from model_store.contract import violations
from model_store.loaded import on_native_grid, prepare
from model_store.manifest import InputContract, Preprocessing
from nca.engine import Engine
from nca.ensemble import Ensemble
from nca.network import Network
from nca.quality import Evidence, dice

SEED = 0
"""The service's default seed: a scan is judged here as it would be there."""


@dataclass(frozen=True)
class Outcome:
    """One segment of one scan, as an ensemble of ``members`` sees it.

    Attributes:
        scan, condition: file name, and what was done to the scan ("clean", "spike", ...).
        dice: of the thresholded mask on the scan's own grid against the label.
        nqm: None where it is undefined.
        volume_ml: of the mask.
        breaches: codes of the input contract's breaches.
    """

    scan: str
    condition: str
    segment: int
    members: int
    dice: float
    nqm: float | None
    pairwise_dice: float | None
    finite: bool
    volume_ml: float
    breaches: tuple[str, ...]

    @property
    def evidence(self) -> Evidence:
        """What the verdict is drawn from, the contract aside."""
        return Evidence(nqm=self.nqm, finite=self.finite, volume_ml=self.volume_ml, members=self.members)


Judge = Callable[[Volume, NDArray[np.bool_], tuple[str, str]], Sequence[Outcome]]
"""(scan, truth (segments, x, y, z), (scan's name, condition)) -> outcomes."""


def scan_judge(
    network: Network, preprocessing: Preprocessing, contract: InputContract, *, engine: Engine, members: int
) -> Judge:
    """A function that gives the outcomes of the ensembles of 1, 2, ... ``members`` members on a labelled scan."""

    def judge_scan(volume: Volume, truth: NDArray[np.bool_], names: tuple[str, str]) -> list[Outcome]:
        prepared = prepare(volume, preprocessing)
        scan = prepared.scan
        breaches = violations(
            contract, modality=volume.modality, spacing=scan.spacing, extent=scan.extent, image=prepared.image[0]
        )
        codes = tuple(reason.code for reason in breaches)
        return [
            Outcome(
                scan=names[0],
                condition=names[1],
                segment=segment,
                members=count,
                dice=dice(result.mask, truth[segment]),
                nqm=result.prediction.nqm,
                pairwise_dice=result.prediction.pairwise_dice,
                finite=result.prediction.finite,
                volume_ml=result.volume_ml,
                breaches=codes,
            )
            for count, ensemble in enumerate(_growing(network, prepared.image, engine=engine, members=members), start=1)
            for segment, result in enumerate(on_native_grid(prepared, ensemble.predictions()))
        ]

    return judge_scan


def _growing(network: Network, image: NDArray[np.float32], *, engine: Engine, members: int) -> Iterator[Ensemble]:
    """The ensemble after each member."""
    ensemble = Ensemble()
    for probability in engine.run(network, image, seed=SEED, members=range(members)):
        ensemble.add(probability)
        yield copy.deepcopy(ensemble)
