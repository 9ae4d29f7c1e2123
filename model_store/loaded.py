"""A version ready to run, and the one way a scan goes through it: prepare, segment, back to the scan's own grid.

The worker, `ncagate segment` and the training job's evaluation all call these, so what was calibrated is what runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from imaging.grid import ModelScan, to_model_grid, znormalise
from imaging.volume import Volume
from model_store.manifest import Calibration, InputContract, Manifest, Preprocessing
from model_store.registry import Registry
from nca.conformal import Calibrated
from nca.ensemble import MASK_THRESHOLD, Prediction
from nca.gate import Gate, Observed
from nca.network import Network


@dataclass(frozen=True, eq=False)
class LoadedVersion:
    """A version whose files were checked against its manifest."""

    manifest: Manifest
    network: Network
    calibrated: tuple[Calibrated, ...]

    @cached_property
    def gates(self) -> tuple[Gate, ...]:
        """What judges each structure."""
        return make_gates(self.manifest.calibration, self.calibrated, self.manifest.contract)


def make_gates(calibration: Calibration, calibrated: Sequence[Calibrated], contract: InputContract) -> tuple[Gate, ...]:
    """One gate per structure."""
    return tuple(
        Gate(
            lines=one.lines,
            regression=one.regression,
            members=calibration.members,
            calibrated=outcomes,
            plausible=plausible,
        )
        for one, outcomes, plausible in zip(calibration.structures, calibrated, contract.plausible, strict=True)
    )


@dataclass(frozen=True, eq=False)
class Prepared:
    """A scan as the network sees it.

    Attributes:
        image: the network's input, float32 (inputs, x, y, z), each channel z-scored.
        scan: the scan's first channel on the model's grid, with the way back.
        voxel_ml: volume of one voxel of the scan's own grid in millilitres.
    """

    image: NDArray[np.float32]
    scan: ModelScan
    voxel_ml: float


@dataclass(frozen=True, eq=False)
class StructureResult:
    """One segment, or the union of several, on the scan's own grid, voxel for voxel.

    Attributes:
        prediction: what the ensemble said, on the model's grid.
        mask: bool (x, y, z); of the whole, where the mean probability brought to the scan's grid is above 0.5,
            and of one segment of several, where of these it is also the likeliest.
        deviation: float32 (x, y, z), standard deviation over the members.
        volume_ml: volume of the mask in millilitres.
    """

    prediction: Prediction
    mask: NDArray[np.bool_]
    deviation: NDArray[np.float32]
    volume_ml: float

    @property
    def observed(self) -> Observed:
        """What a gate judges."""
        one = self.prediction
        return Observed(one.nqm, one.finite, self.volume_ml, one.members, one.evidence() if one.members else None)


def prepare(volume: Volume, preprocessing: Preprocessing) -> Prepared:
    """Bring a scan to the model's axes and spacing and z-score its channels."""
    spacing = preprocessing.spacing_mm
    scans = [to_model_grid(replace(volume, array=one, further=()), spacing=spacing) for one in volume.channels]
    scores = [znormalise(one.array) for one in scans]
    image = np.stack(scores) if len(scores) > 1 else scores[0][None]  # of one channel no copy is made
    return Prepared(image, replace(scans[0], array=image[0]), volume.voxel_ml)


def on_native_grid(prepared: Prepared, predictions: Sequence[Prediction]) -> list[StructureResult]:
    """Bring an ensemble's predictions to the scan's own grid; where one is not finite, the masks are empty.

    With several segments the last prediction is that of their union. A voxel of the union belongs to the
    segment that is likeliest there, so that the segments' masks neither overlap nor leave a gap between them.
    """
    finite = all(one.finite for one in predictions)

    def native(one: NDArray[np.float32]) -> NDArray[np.float32]:
        return prepared.scan.to_native(one if finite else np.zeros_like(one))

    *segments, whole = (native(one.mean) for one in predictions)
    masks = [whole > MASK_THRESHOLD]
    if segments:
        likeliest = np.argmax(segments, axis=0)
        masks = [*(masks[0] & (likeliest == index) for index in range(len(segments))), masks[0]]
    return [
        StructureResult(one, mask, native(one.deviation), float(np.count_nonzero(mask)) * prepared.voxel_ml)
        for one, mask in zip(predictions, masks, strict=True)
    ]


def load_version(registry: Registry, name: str, selector: str | None = None) -> LoadedVersion:
    """Resolve a version or alias, check its files and load its weights.

    Raises:
        ModelStoreError: there is none, or it is corrupt.
    """
    manifest = registry.resolve(name, selector)
    return LoadedVersion(manifest, registry.load_network(manifest), registry.load_calibration(manifest))
