"""Degraded copies of a labelled scan: the paper's three artefacts (seed, section 3.2), eight more, five severities.

Intensities are z-normalised first. What moves voxels (crop, orientation) moves the label with them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torchio
from numpy.typing import NDArray
from scipy import ndimage

from imaging.grid import znormalise
from imaging.volume import Volume

Rng = np.random.Generator
Array = NDArray[np.float32]
Labels = NDArray[np.bool_]
SEVERITIES = (1, 2, 3, 4, 5)
GHOSTS = 6
BIAS_ORDER = 3
BIAS_TERMS = 20
"""Coefficients of a polynomial of order 3 in three variables."""
MOVEMENTS = 2
CLEAN = "clean"


@dataclass(frozen=True, order=True)
class Condition:
    """What is done to a scan: a kind of artefact at a severity 1 to 5, or nothing (`clean`, severity 0)."""

    kind: str
    severity: int = 0

    def __str__(self) -> str:
        return self.kind if self.severity == 0 else f"{self.kind} {self.severity}"


def degrade(volume: Volume, truth: Labels, condition: Condition, *, rng: Rng) -> tuple[Volume, Labels]:
    """The scan (z-normalised) and its labels (segments, x, y, z) under a condition; clean ones are as they are.

    All channels are changed alike, by the same draws.

    Raises:
        KeyError: no such kind.
    """
    if condition.kind == CLEAN:
        return volume, truth
    change, strengths = _KINDS[condition.kind]
    strength = strengths[condition.severity - 1]
    changed = [change(znormalise(one), truth, strength, copy.deepcopy(rng)) for one in volume.channels]
    arrays = [np.asarray(array, dtype=np.float32) for array, _ in changed]
    return replace(volume, array=arrays[0], further=tuple(arrays[1:])), np.ascontiguousarray(changed[0][1])


def _noise(image: Array, std: float, rng: Rng) -> Array:
    return _torchio(image, torchio.Noise(mean=0.0, std=std, seed=int(rng.integers(2**31))))


def _spike(image: Array, intensity: float, rng: Rng) -> Array:
    return _torchio(image, torchio.Spike(spikes_positions=rng.random((1, 3)), intensity=intensity))


def _ghosting(image: Array, intensity: float, rng: Rng) -> Array:
    return _torchio(image, torchio.Ghosting(GHOSTS, int(rng.integers(3)), intensity, restore=None))


def _motion(image: Array, size: float, rng: Rng) -> Array:
    """Movements by up to ``size`` degrees and half as many mm, at random moments of the acquisition."""
    degrees, shifts = (rng.uniform(-bound, bound, (MOVEMENTS, 3)) for bound in (size, size / 2))
    times = np.sort(rng.uniform(0.2, 0.8, MOVEMENTS))
    return _torchio(image, torchio.Motion(degrees, shifts, times, image_interpolation="linear"))


def _bias(image: Array, bound: float, rng: Rng) -> Array:
    """A smooth multiplicative field, on intensities made positive."""
    coefficients = rng.uniform(-bound, bound, BIAS_TERMS).tolist()
    return _torchio(image - image.min(), torchio.BiasField(coefficients, order=BIAS_ORDER))


def _blur(image: Array, std: float, rng: Rng) -> Array:
    return _torchio(image, torchio.Blur((std, std, std)))


def _anisotropy(image: Array, factor: float, rng: Rng) -> Array:
    """Slices ``factor`` times as thick along a random axis."""
    axis = int(rng.integers(3))
    thick = ndimage.gaussian_filter1d(image, factor / 3, axis=axis, mode="nearest")
    count = max(2, round(image.shape[axis] / factor))
    shape = [count if one == axis else n for one, n in enumerate(image.shape)]
    return _zoomed(_zoomed(thick, shape), image.shape)


def _gamma(image: Array, logarithm: float, rng: Rng) -> Array:
    exponent = np.exp(logarithm * rng.choice([-1, 1]))
    low, high = image.min(), image.max()
    return np.asarray(((image - low) / (high - low + 1e-6)) ** exponent, dtype=np.float32)


def _contrast(image: Array, kept: float, rng: Rng) -> Array:
    """Intensities folded over at the quantile ``kept``: what was brightest becomes dark, as in another sequence."""
    return np.asarray(-np.abs(image - np.quantile(image, kept)), dtype=np.float32)


def _crop(image: Array, truth: Labels, share: float, rng: Rng) -> tuple[Array, Labels]:
    """A share of the field of view is missing, from a random side."""
    axis, low = int(rng.integers(3)), bool(rng.integers(2))
    cut = round(share * image.shape[axis])
    kept = slice(cut, None) if low else slice(0, image.shape[axis] - cut)
    box = tuple(kept if one == axis else slice(None) for one in range(3))
    return image[box], truth[(slice(None), *box)]


def _orientation(image: Array, truth: Labels, variant: float, rng: Rng) -> tuple[Array, Labels]:
    """The header lies: 1 mirrored left-right, 2 front-back, 3 up-down, 4, 5 turned about the first, third axis."""
    mirrored = int(variant) - 1
    if mirrored < 3:
        return np.flip(image, mirrored), np.flip(truth, mirrored + 1)
    axes = (1, 2) if variant == 4 else (0, 1)
    turned: Array = np.rot90(image, axes=axes)
    return turned, np.asarray(np.rot90(truth, axes=(axes[0] + 1, axes[1] + 1)))


def _torchio(image: Array, transform: torchio.Transform) -> Array:
    (degraded,) = np.asarray(transform(image[None]), dtype=np.float32)
    return np.asarray(degraded)


def _zoomed(image: Array, shape: Sequence[int]) -> Array:
    factors = [m / n for n, m in zip(image.shape, shape, strict=True)]
    return np.asarray(ndimage.zoom(image, factors, order=1, mode="nearest", grid_mode=True))


Change = Callable[[Array, Labels, float, Rng], tuple[Array, Labels]]


def _in_place(change: Callable[[Array, float, Rng], Array]) -> Change:
    """Of a change of intensities: the labels stay."""
    return lambda image, truth, strength, rng: (change(image, strength, rng), truth)


_KINDS: dict[str, tuple[Change, tuple[float, ...]]] = {
    "noise": (_in_place(_noise), (0.125, 0.25, 0.5, 1.0, 2.0)),
    "spike": (_in_place(_spike), (1.25, 2.5, 5.0, 7.5, 10.0)),
    "ghosting": (_in_place(_ghosting), (0.5, 1.0, 2.5, 4.0, 6.0)),
    "motion": (_in_place(_motion), (2.0, 4.0, 8.0, 12.0, 20.0)),
    "bias": (_in_place(_bias), (0.2, 0.4, 0.6, 0.9, 1.2)),
    "blur": (_in_place(_blur), (0.5, 0.75, 1.0, 1.5, 2.5)),
    "anisotropy": (_in_place(_anisotropy), (1.5, 2.0, 3.0, 4.0, 6.0)),
    "gamma": (_in_place(_gamma), (0.2, 0.4, 0.6, 0.9, 1.2)),
    "contrast": (_in_place(_contrast), (0.95, 0.8, 0.65, 0.5, 0.05)),
    "crop": (_crop, (0.1, 0.2, 0.3, 0.4, 0.5)),
    "orientation": (_orientation, (1, 2, 3, 4, 5)),
}
KINDS = tuple(_KINDS)
PAPER = tuple(Condition(kind, 3) for kind in ("noise", "spike", "ghosting"))
"""The paper's three, at the paper's strength: noise of deviation 0.5, one spike of intensity 5, 6 ghosts of 2.5."""
