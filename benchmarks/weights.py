"""Networks to time: shipped weights where their shapes fit, so that states stay as tame as real ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache

import numpy as np

from model_store.registry import SHIPPED, Registry
from nca.architecture import Architecture
from nca.network import FloatArray, Network
from nca.weights import expected

DONOR = "hippocampus"
SMALL = 0.02
"""Deviation of random weights: states must not overflow within a hundred steps."""


def network_for(architecture: Architecture) -> Network:
    """A network of this architecture. Each level takes the shipped weights of a level with its kernel, or random ones.

    A level with more or fewer steps than the shipped one has its statistics stretched over them.
    """
    rng = np.random.default_rng(0)
    weights: dict[str, FloatArray] = {}
    for name, shape in expected(architecture).items():
        index, leaf = int(name.removeprefix("level").split(".")[0]), name.split(".", 1)[1]
        given = _shipped_level(architecture.levels[index].kernel).get(leaf)
        if given is not None and leaf in ("norm.mean", "norm.variance"):
            given = given[np.arange(shape[0]) * len(given) // shape[0]]
        weights[name] = given if given is not None and given.shape == shape else _random(leaf, shape, rng)
    return Network(architecture, weights)


def prefix(network: Network, steps: Sequence[int]) -> Network:
    """The same network, each level ended after its first ``steps``."""
    architecture = network.architecture
    levels = tuple(replace(level, steps=n) for level, n in zip(architecture.levels, steps, strict=True))
    shorter = replace(architecture, levels=levels)
    weights = dict(network.weights)
    for i, n in enumerate(steps):
        for name in (f"level{i}.norm.mean", f"level{i}.norm.variance"):
            weights[name] = np.ascontiguousarray(weights[name][:n])
    return Network(shorter, weights)


@cache
def _shipped_level(kernel: int) -> Mapping[str, FloatArray]:
    """Weights of the shipped level with this kernel by name without its level; empty where there is none."""
    registry = Registry(SHIPPED)
    network = registry.load_network(registry.resolve(DONOR))
    for i, level in enumerate(network.architecture.levels):
        if level.kernel == kernel:
            start = f"level{i}."
            return {
                name.removeprefix(start): array for name, array in network.weights.items() if name.startswith(start)
            }
    return {}


def _random(leaf: str, shape: tuple[int, ...], rng: np.random.Generator) -> FloatArray:
    values = rng.normal(0.0, SMALL, shape)
    return (values + 1.0 if leaf in ("norm.scale", "norm.variance") else values).astype(np.float32)
