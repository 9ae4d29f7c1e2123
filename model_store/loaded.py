"""A version ready to run, and the one way a scan goes through it: prepare, segment, back to the scan's own grid.

The worker, `ncagate segment` and the training job's evaluation all call these, so what was calibrated is what runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from imaging.grid import ModelScan, to_model_grid, znormalise
from imaging.volume import Volume
from model_store.manifest import Manifest, Preprocessing
from model_store.registry import Registry
from nca.ensemble import MASK_THRESHOLD, Prediction
from nca.network import Network


@dataclass(frozen=True, eq=False)
class LoadedVersion:
    """A version whose files were checked against its manifest."""

    manifest: Manifest
    network: Network


@dataclass(frozen=True, eq=False)
class Prepared:
    """A scan as the network sees it.

    Attributes:
        scan: the scan on the model's grid, z-scored, with the way back.
        voxel_ml: volume of one voxel of the scan's own grid in millilitres.
    """

    scan: ModelScan
    voxel_ml: float

    @property
    def image(self) -> NDArray[np.float32]:
        """The network's input, float32 (1, x, y, z)."""
        return self.scan.array[None]


@dataclass(frozen=True, eq=False)
class SegmentResult:
    """One segment on the scan's own grid, voxel for voxel.

    Attributes:
        prediction: what the ensemble said, on the model's grid.
        mask: bool (x, y, z), where the mean probability brought to the scan's grid is above 0.5.
        deviation: float32 (x, y, z), standard deviation over the members.
        volume_ml: volume of the mask in millilitres.
    """

    prediction: Prediction
    mask: NDArray[np.bool_]
    deviation: NDArray[np.float32]
    volume_ml: float


def prepare(volume: Volume, preprocessing: Preprocessing) -> Prepared:
    """Bring a scan to the model's axes and spacing and z-score it."""
    scan = to_model_grid(volume, spacing=preprocessing.spacing_mm)
    return Prepared(replace(scan, array=znormalise(scan.array)), volume.voxel_ml)


def on_native_grid(prepared: Prepared, predictions: Sequence[Prediction]) -> list[SegmentResult]:
    """Bring an ensemble's predictions to the scan's own grid; one that is not finite gives an empty mask."""
    return [_on_native_grid(prepared, one) for one in predictions]


def _on_native_grid(prepared: Prepared, prediction: Prediction) -> SegmentResult:
    def native(one: NDArray[np.float32]) -> NDArray[np.float32]:
        return prepared.scan.to_native(one if prediction.finite else np.zeros_like(one))

    mask = native(prediction.mean) > MASK_THRESHOLD
    volume_ml = float(np.count_nonzero(mask)) * prepared.voxel_ml
    return SegmentResult(prediction, mask, native(prediction.deviation), volume_ml)


def load_version(registry: Registry, name: str, selector: str | None = None) -> LoadedVersion:
    """Resolve a version or alias, check its files and load its weights.

    Raises:
        ModelStoreError: there is none, or it is corrupt.
    """
    manifest = registry.resolve(name, selector)
    return LoadedVersion(manifest, registry.load_network(manifest))
