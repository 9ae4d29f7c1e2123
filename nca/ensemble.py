"""The pseudo-ensemble: N members of one network differ only in which cells fired (seed, section 2.1)."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log, prod

import numpy as np
from numpy.typing import NDArray

from nca.engine import Engine, ProgressCallback
from nca.errors import InvalidInputError
from nca.evidence import NQM_OFFSET, Evidence, on_border, stray
from nca.network import FloatArray, Network
from nca.quality import SLAB, entropy, mask_nqm, nqm, pairwise_dice

MASK_THRESHOLD = 0.5
"""A voxel belongs to the segment where the mean probability is above this."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """What an ensemble says of one segment of one image.

    Attributes:
        mean: float32 (x, y, z), mean over the members of the sigmoid probabilities.
        deviation: float32 (x, y, z), population standard deviation over the members.
        members: how many.
        nqm: NCA quality metric (seed, equation 1); None where the mean sums to zero or is not finite.
        mask_nqm: the same ratio for the members' binarised masks; None where all are empty.
        entropy: entropy of the mean probability (nats), summed, over the summed mean; None as nqm.
        pairwise_dice: mean Dice between all pairs of members' masks; None with one member, or if all are empty.
        finite: False where a member held a NaN or an infinity; mean and deviation are then not to be used.
    """

    mean: FloatArray
    deviation: FloatArray
    members: int
    nqm: float | None
    mask_nqm: float | None
    entropy: float | None
    pairwise_dice: float | None
    finite: bool

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Voxels whose mean probability is above 0.5; (x, y, z)."""
        return self.mean > MASK_THRESHOLD

    def evidence(self) -> Evidence | None:
        """What a predicted Dice is drawn from; None where the mask is empty, or the maps are not to be used."""
        mask = self.mask
        if not self.finite or self.nqm is None or self.mask_nqm is None or not mask.any():
            return None
        return Evidence(
            nqm=self.nqm,
            log_nqm=log(self.nqm + NQM_OFFSET),
            mask_nqm=self.mask_nqm,
            disagreement=0.0 if self.pairwise_dice is None else 1.0 - self.pairwise_dice,
            entropy=self.entropy or 0.0,
            stray=stray(mask),
            border=on_border(mask),
        )


class Ensemble:
    """Members taken in one at a time. Memory: two float32 maps, and one bit per voxel, segment and member."""

    def __init__(self) -> None:
        self._mean: FloatArray = np.zeros((0, 0, 0, 0), np.float32)
        self._squares: FloatArray = self._mean
        self._masks: list[NDArray[np.uint8]] = []

    def add(self, probability: FloatArray) -> None:
        """Take in one member's probabilities (segments, x, y, z); nothing of the array is kept.

        Of several segments, which exclude each other, the union is kept as one more: the sum, at most 1.
        """
        if len(probability) > 1:
            probability = np.concatenate([probability, probability.sum(0, keepdims=True).clip(max=1.0)])
        if not self._masks:
            self._mean, self._squares = (np.zeros(probability.shape, np.float32) for _ in range(2))
        segments, voxels = len(probability), prod(probability.shape[1:])
        member, mean, squares = (one.reshape(segments, voxels) for one in (probability, self._mean, self._squares))
        mask = np.empty((segments, ceil(voxels / 8)), np.uint8)
        self._masks.append(mask)
        for start in range(0, voxels, SLAB):
            slab, packed = np.s_[:, start : start + SLAB], np.s_[:, start // 8 : (start + SLAB) // 8]
            _welford(member[slab], mean[slab], squares[slab], count=len(self._masks))
            mask[packed] = np.packbits(member[slab] > MASK_THRESHOLD, axis=1)

    def predictions(self) -> tuple[Prediction, ...]:
        """What the members said: one Prediction per segment, and of several one more, of their union.

        The maps are handed over: the ensemble is empty then.
        """
        mean, deviation, masks = self._mean, self._squares, self._masks
        self._mean, self._squares, self._masks = mean[:0], mean[:0], []
        deviation /= max(1, len(masks))
        np.sqrt(deviation, out=deviation)
        return tuple(_prediction(mean[i], deviation[i], [packed[i] for packed in masks]) for i in range(len(mean)))


def _welford(member: FloatArray, mean: FloatArray, squares: FloatArray, *, count: int) -> None:
    """Take the ``count``-th member into the mean and the summed squared deviations, in place.

    Computed in double precision and kept in single. The spread stays exactly zero where all members agree.
    """
    delta = np.subtract(member, mean, dtype=np.float64)
    mean += delta / count
    squares += delta**2 * ((count - 1) / count)


def predict(
    engine: Engine,
    network: Network,
    image: FloatArray,
    *,
    seed: int,
    members: int,
    on_progress: ProgressCallback | None = None,
) -> tuple[Prediction, ...]:
    """Run ``members`` members on ``image`` (float32 (inputs, x, y, z), normalised): as `Ensemble.predictions`.

    Raises:
        InvalidInputError: no members, or an image that is not finite float32 of the right shape.
        ImageTooSmallError: a level of this image would be thinner than its kernel can reflect.
        CancelledError: the callback asked to stop.
    """
    if members < 1:
        raise InvalidInputError("an ensemble has at least one member")
    check_image(network, image)
    ensemble = Ensemble()
    for probability in engine.run(network, image, seed=seed, members=range(members), on_progress=on_progress):
        ensemble.add(probability)
    return ensemble.predictions()


def check_image(network: Network, image: FloatArray) -> None:
    """Raise InvalidInputError unless ``image`` is finite float32 (inputs, x, y, z)."""
    if image.ndim != 4 or image.shape[0] != network.architecture.inputs or image.dtype != np.float32:
        raise InvalidInputError(f"expected float32 (inputs, x, y, z), not {image.dtype} {image.shape}")
    if not _all_finite(image):
        raise InvalidInputError("the image holds NaN or infinite values")


def _all_finite(array: FloatArray) -> bool:
    flat = array.reshape(-1)
    return all(bool(np.isfinite(flat[start : start + SLAB]).all()) for start in range(0, flat.size, SLAB))


def _prediction(mean: FloatArray, deviation: FloatArray, masks: list[NDArray[np.uint8]]) -> Prediction:
    finite = _all_finite(mean) and _all_finite(deviation)
    return Prediction(
        mean=mean,
        deviation=deviation,
        members=len(masks),
        nqm=nqm(mean, deviation) if finite else None,
        mask_nqm=mask_nqm(masks) if finite else None,
        entropy=entropy(mean) if finite else None,
        pairwise_dice=pairwise_dice(masks) if finite else None,
        finite=finite,
    )
