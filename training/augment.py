"""Random changes of a crop, drawn from a generator that the caller seeds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training.config import AugmentationSection

Array = NDArray[np.float32]


def crop(image: Array, target: Array, *, size: tuple[int, int, int], rng: np.random.Generator) -> tuple[Array, Array]:
    """A random box of ``size`` from ``image`` (x, y, z) and ``target`` (segments, x, y, z), reflected if too small."""
    missing = [max(0, want - have) for want, have in zip(size, image.shape, strict=True)]
    pads = [(total // 2, total - total // 2) for total in missing]
    image = np.pad(image, pads, mode="reflect")
    target = np.pad(target, [(0, 0), *pads], mode="reflect")
    start = [int(rng.integers(0, have - want + 1)) for want, have in zip(size, image.shape, strict=True)]
    box = tuple(slice(o, o + n) for o, n in zip(start, size, strict=True))
    return image[box], target[(slice(None), *box)]


def augment(
    image: Array, target: Array, *, section: AugmentationSection, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Flips of both, then gamma, scale, shift and noise of the intensities; shapes as in `crop`."""
    axes = tuple(axis for axis, chance in enumerate(section.flip) if rng.random() < chance)
    image, target = np.flip(image, axes), np.flip(target, tuple(axis + 1 for axis in axes))
    return _intensities(image, section, rng), np.ascontiguousarray(target, dtype=np.float32)


def _intensities(image: Array, section: AugmentationSection, rng: np.random.Generator) -> Array:
    low, high = float(image.min()), float(image.max())
    exponent = float(np.exp(rng.uniform(-section.gamma, section.gamma)))
    values = low + (high - low) * ((image - low) / (high - low + 1e-6)) ** exponent
    values = values * rng.uniform(1 - section.scale, 1 + section.scale) + rng.uniform(-section.shift, section.shift)
    if section.noise:
        values = values + rng.normal(0.0, rng.uniform(0.0, section.noise), image.shape)
    return np.ascontiguousarray(values, dtype=np.float32)
