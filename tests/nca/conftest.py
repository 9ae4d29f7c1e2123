from collections.abc import Callable

import numpy as np
import pytest

from nca.architecture import Architecture, Level
from nca.engine import Network
from nca.weights import expected

MakeNetwork = Callable[..., Network]


@pytest.fixture
def make_network() -> MakeNetwork:
    """A network with random weights, strong enough that its states move."""

    def make(architecture: Architecture | None = None, *, seed: int = 0) -> Network:
        architecture = architecture or Architecture((Level(5, 3, (2, 2, 2)), Level(3, 4)), channels=6, hidden=10)
        rng = np.random.default_rng(seed)
        weights = {}
        for name, shape in expected(architecture).items():
            values = rng.normal(0.0, 0.3, shape).astype(np.float32)
            weights[name] = np.abs(values) + 0.5 if name.endswith(("variance", "scale")) else values
        return Network(architecture, weights)

    return make
