"""Degraded copies of a scan, by TorchIO: the three artefacts of the paper (seed, section 3.2)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torchio

from imaging.grid import znormalise
from imaging.volume import Volume

NOISE_STD = 0.5
SPIKE_INTENSITY = 5.0
GHOSTS = 6
GHOST_INTENSITY = 2.5
ARTEFACTS = ("noise", "spike", "ghosting")


def degrade(volume: Volume, artefact: str, *, rng: np.random.Generator) -> Volume:
    """The scan with one of `ARTEFACTS` at the paper's strength; intensities are z-normalised first.

    Noise has a standard deviation of 0.5, the spike an intensity of 5 at a random place of k-space, the 6 ghosts
    an intensity of 2.5 along a random axis.
    """
    if artefact == "noise":
        return _apply(volume, torchio.Noise(mean=0.0, std=NOISE_STD, seed=int(rng.integers(2**31))))
    if artefact == "ghosting":
        axis = int(rng.integers(3))
        return _apply(volume, torchio.Ghosting(GHOSTS, axis, GHOST_INTENSITY, restore=None))
    if artefact == "spike":
        return spike(volume, intensity=SPIKE_INTENSITY, rng=rng)
    raise ValueError(f"no artefact {artefact!r}")


def spike(volume: Volume, *, intensity: float, rng: np.random.Generator) -> Volume:
    """The z-normalised scan with one spike of ``intensity`` (TorchIO's unit) at a random place of k-space."""
    return _apply(volume, torchio.Spike(spikes_positions=rng.random((1, 3)), intensity=intensity))


def _apply(volume: Volume, transform: torchio.Transform) -> Volume:
    degraded = transform(znormalise(volume.array)[None])
    return replace(volume, array=np.asarray(degraded, dtype=np.float32)[0])
