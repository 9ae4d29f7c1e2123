"""An image on the grid of every level: where all engines and the training start from."""

from __future__ import annotations

import numpy as np

from nca.architecture import Architecture, Shape
from nca.network import FloatArray


def pyramid(architecture: Architecture, image: FloatArray) -> list[FloatArray]:
    """``image``, float32 (..., x, y, z), on every level's grid, coarsest first, by average pooling.

    A border block that sticks out of the image averages the voxels it has. The finest is ``image`` itself;
    no more memory is taken than what is returned.
    """
    images = [image]
    for level in reversed(architecture.levels[:-1]):
        images.insert(0, _averaged(images[0], level.scale))
    return images


def _averaged(image: FloatArray, scale: Shape) -> FloatArray:
    """Means of blocks of ``scale`` voxels: (..., x, y, z) -> (..., ceil(x / sx), ceil(y / sy), ceil(z / sz))."""
    sizes = [_block_sizes(n, s) for n, s in zip(image.shape[-3:], scale, strict=True)]
    means = np.zeros((*image.shape[:-3], *map(len, sizes)), dtype=np.float32)
    for offset in np.ndindex(scale):  # one voxel of every block at a time, as a strided view
        x, y, z = (slice(o, None, s) for o, s in zip(offset, scale, strict=True))
        part = image[..., x, y, z]
        x, y, z = (slice(n) for n in part.shape[-3:])  # a block that sticks out may have none there
        means[..., x, y, z] += part
    for axis, size in enumerate(sizes):
        means /= np.expand_dims(size, tuple(range(1, 3 - axis)))
    return means


def _block_sizes(voxels: int, scale: int) -> FloatArray:
    """How many of an axis' voxels each block has: ``scale``, and of the last one what is left."""
    return np.minimum(scale, voxels - np.arange(0, voxels, scale)).astype(np.float32)
