"""A trained automaton as plain arrays: what is stored, and what every engine is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nca.architecture import Architecture

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class Network:
    """An architecture and its weights, keyed and shaped as `nca.weights` lists them."""

    architecture: Architecture
    weights: Mapping[str, FloatArray]
