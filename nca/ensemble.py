"""The pseudo-ensemble: N members of one network differ only in which cells fired (seed, section 2.1)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nca.engine import Engine, ProgressCallback
from nca.errors import InvalidInputError
from nca.network import FloatArray, Network
from nca.quality import nqm, pairwise_dice

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
        pairwise_dice: mean Dice between all pairs of members' masks; None with one member, or if all are empty.
        finite: False where a member held a NaN or an infinity; mean and deviation are then not to be used.
    """

    mean: FloatArray
    deviation: FloatArray
    members: int
    nqm: float | None
    pairwise_dice: float | None
    finite: bool

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Voxels whose mean probability is above 0.5; (x, y, z)."""
        return self.mean > MASK_THRESHOLD


class Ensemble:
    """Members taken in one at a time. Memory grows by one bit per voxel, segment and member only."""

    def __init__(self) -> None:
        self._count = 0
        self._mean: NDArray[np.float64] = np.zeros(())
        self._squares: NDArray[np.float64] = np.zeros(())
        self._masks: list[NDArray[np.uint8]] = []

    def add(self, probability: FloatArray) -> None:
        """Take in one member's probabilities (segments, x, y, z)."""
        self._count += 1
        delta = probability - self._mean  # Welford's update: exactly zero spread where all members agree
        self._mean = self._mean + delta / self._count
        self._squares = self._squares + delta * (probability - self._mean)
        self._masks.append(np.packbits((probability > MASK_THRESHOLD).reshape(len(probability), -1), axis=1))

    def predictions(self) -> tuple[Prediction, ...]:
        """What the members so far say, one Prediction per segment."""
        deviation = np.sqrt(self._squares / self._count)
        return tuple(
            _prediction(self._mean[i], deviation[i], [packed[i] for packed in self._masks])
            for i in range(len(self._mean))
        )


def predict(
    engine: Engine,
    network: Network,
    image: FloatArray,
    *,
    seed: int,
    members: int,
    on_progress: ProgressCallback | None = None,
) -> tuple[Prediction, ...]:
    """Run ``members`` members on ``image`` (float32 (inputs, x, y, z), normalised): one Prediction per segment.

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
    if not np.isfinite(image).all():
        raise InvalidInputError("the image holds NaN or infinite values")


def _prediction(
    mean: NDArray[np.float64], deviation: NDArray[np.float64], masks: list[NDArray[np.uint8]]
) -> Prediction:
    finite = bool(np.isfinite(mean).all() and np.isfinite(deviation).all())
    return Prediction(
        mean=mean.astype(np.float32),
        deviation=deviation.astype(np.float32),
        members=len(masks),
        nqm=nqm(mean, deviation) if finite else None,
        pairwise_dice=pairwise_dice(masks) if finite else None,
        finite=finite,
    )
