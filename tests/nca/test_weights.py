from collections.abc import Callable

import numpy as np
import pytest

from nca.errors import InvalidArchitectureError
from nca.network import Network
from nca.weights import validate

MakeNetwork = Callable[..., Network]


class TestValidate:
    def test_passes_a_network_as_it_should_be(self, make_network: MakeNetwork) -> None:
        network = make_network()
        validate(network.architecture, network.weights)
        assert len(network.weights) == 18

    @pytest.mark.parametrize("name", ["level0.perceive.weight", "level1.norm.mean"])
    def test_refuses_a_missing_weight(self, make_network: MakeNetwork, name: str) -> None:
        network = make_network()
        weights = {key: value for key, value in network.weights.items() if key != name}
        with pytest.raises(InvalidArchitectureError, match=name):
            validate(network.architecture, weights)

    @pytest.mark.parametrize(
        "broken",
        [
            lambda array: array[:-1],
            lambda array: array.astype(np.float64),
            lambda array: np.full_like(array, np.nan),
            lambda array: -array - 1,
        ],
        ids=["shape", "dtype", "nan", "negative variance"],
    )
    def test_refuses_a_weight_that_does_not_fit(
        self, make_network: MakeNetwork, broken: Callable[[np.ndarray], np.ndarray]
    ) -> None:
        network = make_network()
        name = "level0.norm.variance"
        weights = dict(network.weights) | {name: broken(np.abs(network.weights[name]))}
        with pytest.raises(InvalidArchitectureError, match=name):
            validate(network.architecture, weights)
