"""Names and shapes of a network's weights: what safetensors files hold and every engine reads.

Per level ``i`` (coarsest 0), with c channels, h hidden, kernel k and s steps:

    level{i}.perceive.weight   (c, k, k, k)   depthwise kernel, taps in x, y, z
    level{i}.perceive.bias     (c,)
    level{i}.dense_in.weight   (h, 2c)        columns: the cell's own state, then what it perceives
    level{i}.dense_in.bias     (h,)
    level{i}.norm.scale        (h,)
    level{i}.norm.shift        (h,)
    level{i}.norm.mean         (s, h)         population statistics of each step, collected after training
    level{i}.norm.variance     (s, h)
    level{i}.dense_out.weight  (c, h)
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from nca.architecture import Architecture
from nca.errors import InvalidArchitectureError

NORM_EPSILON = 1e-5
"""Added to the variance before its root, in training and at inference."""


def expected(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """Shape of every weight of this architecture, by name."""
    c, h = architecture.channels, architecture.hidden
    shapes: dict[str, tuple[int, ...]] = {}
    for i, level in enumerate(architecture.levels):
        k = level.kernel
        shapes |= {
            f"level{i}.perceive.weight": (c, k, k, k),
            f"level{i}.perceive.bias": (c,),
            f"level{i}.dense_in.weight": (h, 2 * c),
            f"level{i}.dense_in.bias": (h,),
            f"level{i}.norm.scale": (h,),
            f"level{i}.norm.shift": (h,),
            f"level{i}.norm.mean": (level.steps, h),
            f"level{i}.norm.variance": (level.steps, h),
            f"level{i}.dense_out.weight": (c, h),
        }
    return shapes


def validate(architecture: Architecture, weights: Mapping[str, NDArray[np.float32]]) -> None:
    """Raise InvalidArchitectureError unless the weights are complete, float32, finite and of the right shape."""
    shapes = expected(architecture)
    if weights.keys() != shapes.keys():
        difference = sorted(weights.keys() ^ shapes.keys())
        raise InvalidArchitectureError(f"weights are missing or unknown: {', '.join(difference)}")
    for name, shape in shapes.items():
        array = weights[name]
        if array.shape != shape or array.dtype != np.float32:
            raise InvalidArchitectureError(f"{name} is {array.dtype} {array.shape}, not float32 {shape}")
        if not np.isfinite(array).all() or (name.endswith(".variance") and (array < 0).any()):
            raise InvalidArchitectureError(f"{name} holds values that are not finite or not a variance")
