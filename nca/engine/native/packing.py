"""A network's weights as the kernels read them: channels last, padded, normalisation folded in per step.

Normalisation by fixed statistics is affine, so it disappears into the dense layer before it, together with the
convolution's bias. Done in double precision, once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nca.network import FloatArray, Network
from nca.weights import NORM_EPSILON

CHANNEL_QUANTUM = 16
"""Channels are padded to whole cache lines of 16 float32."""
HIDDEN_QUANTUM = 32
"""Hidden units are padded to pairs of such lines."""


@dataclass(frozen=True, eq=False)
class PackedLevel:
    """One level's weights, float32; c and h are the padded counts, s the steps.

    Attributes:
        perceive: (k, k, k, c).
        dense_in: (s, 2c, h), the inputs being the cell's own state, then what it perceives.
        bias: (s, h).
        dense_out: (h, c), zero for the image channels.
    """

    perceive: FloatArray
    dense_in: FloatArray
    bias: FloatArray
    dense_out: FloatArray


def padded(count: int, quantum: int) -> int:
    """The next multiple of ``quantum``."""
    return -(-count // quantum) * quantum


def pack_level(network: Network, index: int) -> PackedLevel:
    """The weights of level ``index``, folded and padded."""
    architecture = network.architecture
    weights = {
        name: network.weights[f"level{index}.{name}"].astype(np.float64)
        for name in (
            "perceive.weight", "perceive.bias", "dense_in.weight", "dense_in.bias", "dense_out.weight",
            "norm.scale", "norm.shift", "norm.mean", "norm.variance",
        )
    }  # fmt: skip
    c, h = padded(architecture.channels, CHANNEL_QUANTUM), padded(architecture.hidden, HIDDEN_QUANTUM)
    gain = weights["norm.scale"] / np.sqrt(weights["norm.variance"] + NORM_EPSILON)  # (s, h)
    own, perceived = np.split(weights["dense_in.weight"].T, 2)  # (c, h) each
    constant = weights["dense_in.bias"] + weights["perceive.bias"] @ perceived
    dense_in = np.concatenate([_grown(own, (c, h)), _grown(perceived, (c, h))])[None]
    dense_out = weights["dense_out.weight"].T.copy()
    dense_out[:, : architecture.inputs] = 0.0
    perceive = np.moveaxis(weights["perceive.weight"], 0, -1)
    return PackedLevel(
        perceive=_float32(_grown(perceive, (*perceive.shape[:3], c))),
        dense_in=_float32(dense_in * _grown(gain, (len(gain), h))[:, None]),
        bias=_float32(_grown((constant - weights["norm.mean"]) * gain + weights["norm.shift"], (len(gain), h))),
        dense_out=_float32(_grown(dense_out, (h, c))),
    )


def _grown(array: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Filled up with zeros at the end of every axis."""
    return np.pad(array, [(0, want - have) for want, have in zip(shape, array.shape, strict=True)])


def _float32(array: NDArray[np.float64]) -> FloatArray:
    return np.ascontiguousarray(array, dtype=np.float32)
