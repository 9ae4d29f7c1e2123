"""Random changes of a crop, drawn from a generator that the caller seeds."""

from __future__ import annotations

from math import ceil

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch.nn import functional

from training.config import AugmentationSection

Array = NDArray[np.float32]
Spacing = tuple[float, float, float]
BIAS_POINTS = (3, 3, 3)
"""Control points of a bias field: as smooth as a coil's."""


def crop(image: Array, target: Array, *, size: tuple[int, int, int], rng: np.random.Generator) -> tuple[Array, Array]:
    """A random box of ``size`` from ``image`` (inputs, x, y, z) and ``target`` (segments, x, y, z).

    Both are reflected where they are too small.
    """
    missing = [max(0, want - have) for want, have in zip(size, image.shape[1:], strict=True)]
    pads = [(0, 0), *((total // 2, total - total // 2) for total in missing)]
    image, target = (np.pad(one, pads, mode="reflect") for one in (image, target))
    start = [int(rng.integers(0, have - want + 1)) for want, have in zip(size, image.shape[1:], strict=True)]
    box = (slice(None), *(slice(o, o + n) for o, n in zip(start, size, strict=True)))
    return image[box], target[box]


def augment(
    image: Array, target: Array, *, section: AugmentationSection, spacing: Spacing, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Flip and deform both, then change each channel's intensities; shapes as in `crop`, ``spacing`` in mm."""
    axes = tuple(axis for axis, chance in enumerate(section.flip, start=1) if rng.random() < chance)
    image, target = np.flip(image, axes), np.flip(target, axes)
    if rng.random() < section.deformed:
        image, target = _deformed(image, target, section=section, spacing=spacing, rng=rng)
    changed = np.stack([_intensities(channel, section, rng) for channel in image])
    return changed, np.ascontiguousarray(target, dtype=np.float32)


def _deformed(
    image: Array, target: Array, *, section: AugmentationSection, spacing: Spacing, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Both rotated, zoomed and bent about the crop's centre; linear, mirrored at the border, the target 0 or 1."""
    both = torch.from_numpy(np.concatenate([image, target]).astype(np.float32))[None]
    shape = image.shape[1:]
    size = np.multiply(shape, spacing)  # mm
    matrix = _rotation(np.radians(rng.uniform(-section.rotation, section.rotation, 3)))
    matrix /= 1 + rng.uniform(-section.zoom, section.zoom)
    # torch's coordinates run from -1 to 1 across the crop, and name the last axis first
    scaled = (matrix * size[None, :] / size[:, None])[::-1, ::-1]
    theta = np.concatenate([scaled, np.zeros((3, 1))], axis=1).astype(np.float32)
    grid = functional.affine_grid(torch.from_numpy(theta)[None], list(both.shape), align_corners=False)
    points = [max(2, ceil(length / section.elastic_mm) + 1) for length in size]
    bend = _smooth_field(3, points, shape, rng) * section.elastic * (2 / size)[:, None, None, None]
    grid = grid + torch.from_numpy(bend[::-1].astype(np.float32)).movedim(0, -1)
    moved = functional.grid_sample(both, grid, mode="bilinear", padding_mode="reflection", align_corners=False)[0]
    return moved[: len(image)].numpy(), (moved[len(image) :] > 0.5).float().numpy()


def _rotation(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """About x, then y, then z (radians)."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return np.asarray(about_z @ about_y @ about_x)


def _smooth_field(channels: int, points: list[int], shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """(channels, x, y, z): normal values at a coarse grid of ``points``, interpolated between them."""
    coarse = torch.from_numpy(rng.normal(size=(1, channels, *points)).astype(np.float32))
    return functional.interpolate(coarse, list(shape), mode="trilinear", align_corners=True)[0].numpy()


def _intensities(image: Array, section: AugmentationSection, rng: np.random.Generator) -> Array:
    low, high = float(image.min()), float(image.max())
    exponent = float(np.exp(rng.uniform(-section.gamma, section.gamma)))
    values = low + (high - low) * ((image - low) / (high - low + 1e-6)) ** exponent
    if section.bias:
        strength = rng.uniform(0.0, section.bias)
        values = values * np.exp(strength * _smooth_field(1, list(BIAS_POINTS), image.shape, rng)[0])
    values = values * rng.uniform(1 - section.scale, 1 + section.scale) + rng.uniform(-section.shift, section.shift)
    if section.blur:
        values = ndimage.gaussian_filter(values, rng.uniform(0.0, section.blur), mode="nearest")
    if section.noise:
        values = values + rng.normal(0.0, rng.uniform(0.0, section.noise), image.shape)
    return np.ascontiguousarray(values, dtype=np.float32)
