"""The reference engine: the readable model, run step by step by torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from nca.engine import Progress, ProgressCallback
from nca.model import M3dNca, Statistics
from nca.network import FloatArray, Network
from nca.pyramid import pyramid
from nca.randomness import Firing


class TorchEngine:
    """Runs a network with torch, one member at a time.

    One at a time, because a batched matrix product may round differently: the result must not depend on how
    many members are asked for.
    """

    def __init__(self, *, threads: int = 0, device: str = "cpu") -> None:
        self.name = "torch" if device == "cpu" else f"torch-{device}"
        self._threads = threads
        self._device = torch.device(device)

    def exact(self) -> TorchEngine:
        """Itself: it computes in float32."""
        return self

    def load(self, network: Network) -> tuple[M3dNca, StoredStatistics]:
        """The model that `run` runs, and its statistics."""
        return to_model(network)

    def run(
        self,
        network: Network,
        image: FloatArray,
        *,
        seed: int,
        members: Sequence[int],
        on_progress: ProgressCallback | None = None,
    ) -> Iterator[FloatArray]:
        """Yield each member's probabilities, as `nca.engine.Engine` says."""
        if self._threads:
            torch.set_num_threads(self._threads)
        model, statistics = self.load(network)
        model.to(self._device)
        statistics.to(self._device)
        grids = network.architecture.shapes(image.shape[1:])
        images = [torch.tensor(one, device=self._device)[None] for one in pyramid(network.architecture, image)]
        total = network.architecture.total_steps
        done = [sum(level.steps for level in network.architecture.levels[:i]) for i in range(len(grids))]

        for position, member in enumerate(members):
            firing = Firing(seed, (member,), network.architecture.fire_rate)

            def fire(level: int, step: int, position: int = position, firing: Firing = firing) -> Tensor:
                if on_progress is not None:
                    on_progress(Progress(position, len(members), done[level] + step, total))
                return torch.from_numpy(firing.mask(level, step, grids[level])).to(self._device)

            run_level = partial(model.run_level, fire_mask=fire, statistics=statistics)
            with torch.inference_mode():
                logits = model.run(images, run_level)[0]
                probabilities: FloatArray = torch.sigmoid(logits).contiguous().cpu().numpy()
            yield probabilities
            if on_progress is not None:
                on_progress(Progress(position, len(members), total, total))


class StoredStatistics:
    """The per-step normalisation statistics of a network, as `M3dNca.run_level` asks for them."""

    def __init__(self, network: Network) -> None:
        self._means = [_tensor(network, i, "norm.mean") for i in range(len(network.architecture.levels))]
        self._variances = [_tensor(network, i, "norm.variance") for i in range(len(network.architecture.levels))]

    def to(self, device: torch.device) -> None:
        """Move them to where the model is."""
        self._means, self._variances = ([one.to(device) for one in part] for part in (self._means, self._variances))

    def __call__(self, level: int, step: int) -> Statistics:
        """Mean and variance (h,) of one step of one level."""
        return self._means[level][step], self._variances[level][step]


PARAMETERS = {
    "perceive.weight": "perceive_weight",
    "perceive.bias": "perceive_bias",
    "dense_in.weight": "dense_in.weight",
    "dense_in.bias": "dense_in.bias",
    "norm.scale": "norm_scale",
    "norm.shift": "norm_shift",
    "dense_out.weight": "dense_out.weight",
}
"""The name of each learned weight in `nca.weights` and in `nca.model.NcaLevel`."""


def to_model(network: Network) -> tuple[M3dNca, StoredStatistics]:
    """The torch model and its statistics, from stored weights."""
    model = M3dNca(network.architecture)
    tensors = {
        f"levels.{i}.{attribute}": _tensor(network, i, name)
        for i in range(len(network.architecture.levels))
        for name, attribute in PARAMETERS.items()
    }
    model.load_state_dict(tensors)
    model.requires_grad_(False)
    return model, StoredStatistics(network)


def to_network(model: M3dNca, statistics: Sequence[Statistics]) -> Network:
    """Stored weights from a trained model and, per level, the mean and variance (steps, h) of its steps."""
    tensors = model.state_dict()
    weights: dict[str, FloatArray] = {}
    for i, (mean, variance) in enumerate(statistics):
        for name, attribute in PARAMETERS.items():
            weights[f"level{i}.{name}"] = _array(tensors[f"levels.{i}.{attribute}"])
        weights[f"level{i}.norm.mean"] = _array(mean)
        weights[f"level{i}.norm.variance"] = _array(variance)
    return Network(model.architecture, weights)


def _tensor(network: Network, level: int, name: str) -> Tensor:
    return torch.tensor(network.weights[f"level{level}.{name}"])


def _array(tensor: Tensor) -> FloatArray:
    return np.ascontiguousarray(tensor.detach().cpu().numpy().astype(np.float32))
