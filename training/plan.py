"""A training configuration from the data themselves: what `ncagate plan` prints and writes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, prod
from pathlib import Path

import numpy as np

from imaging.grid import to_model_grid
from imaging.limits import Limits
from imaging.nifti import read_nifti
from nca.architecture import default_steps
from training.data import find_cases

KERNEL = 3
CROP_VOXELS_MAX = 400_000
"""So much of a scan is trained on at once; the coarser levels see all of it."""
PATCH_VOXELS = 6_500
"""About so much of it on the finest level, and three times as much in the last third."""
COARSEST = 16
"""Halving stops where no axis is longer: the coarsest level then crosses the scan in as many steps."""
SHORTEST = 6
"""An axis is never halved below so many voxels."""
LEVELS_MAX = 4
STEPS = 20
"""Steps of the finest level; the others cross their grid once, at most."""
ANISOTROPY = 2.0
"""An axis is halved only while its voxels are less than this much longer than the shortest axis's."""
LABELS_MAX = 15
"""The state has 16 channels, one of them the image."""

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class Facts:
    """What a folder holds.

    Attributes:
        scans: how many.
        spacing: median per axis (right, front, up) in mm.
        shape: median in voxels of that spacing.
        labels: values that occur, 0 aside.
        volumes: those taken of files with several, as input channels; none of files with one.
    """

    scans: int
    spacing: tuple[float, float, float]
    shape: Triple
    labels: tuple[int, ...]
    volumes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What is derived from the facts: the levels' steps and scales, coarsest first, the crop and two patch sizes."""

    facts: Facts
    steps: tuple[int, ...]
    scales: tuple[Triple, ...]
    crop: Triple
    patches: tuple[Triple, Triple]


def read_facts(folder: Path, *, volumes: Sequence[int] = (), spacing_mm: Sequence[float] | None = None) -> Facts:
    """Look at every labelled scan of a folder; ``volumes`` are those taken of files with several (4-D), from 0.

    With ``spacing_mm`` the grid is of these voxels; else of the scans' median.

    Raises:
        NoTrainingDataError: too few scans.
        ImagingError: a file cannot be read.
    """
    limits = Limits()
    spacings, extents, labels = [], [], set()
    pairs = find_cases(folder)
    for image, label in pairs:
        scan = to_model_grid(read_nifti(image, limits=limits, volumes=volumes), spacing=None)
        spacings.append(scan.spacing)
        extents.append(scan.extent)
        labels |= {int(value) for value in np.unique(read_nifti(label, limits=limits).array)}
    spacing = np.round(np.median(spacings, axis=0) if spacing_mm is None else np.array(spacing_mm), 3)
    x, y, z = np.maximum(1, np.round(np.median(extents, axis=0) / spacing)).astype(int).tolist()
    sx, sy, sz = spacing.tolist()
    return Facts(len(pairs), (sx, sy, sz), (x, y, z), tuple(sorted(labels - {0})), tuple(volumes))


def make_plan(facts: Facts) -> Plan:
    """Levels that halve what may be halved until the coarsest is small; crop and patches that divide by them."""
    scales = _scales(facts)
    factors = [prod(scale[axis] for scale in scales) for axis in range(3)]
    crop = _crop(facts.shape, factors)
    grid, steps = crop, [STEPS]
    for scale in reversed(scales):
        grid = _triple(ceil(n / s) for n, s in zip(grid, scale, strict=True))
        steps.insert(0, min(STEPS, default_steps(grid, KERNEL)))
    finest = scales[-1] if scales else (1, 1, 1)
    patches = tuple(_patch(crop, finest, voxels) for voxels in (PATCH_VOXELS, 3 * PATCH_VOXELS))
    return Plan(facts, tuple(steps), (*scales, (1, 1, 1)), crop, (patches[0], patches[1]))


def to_toml(plan: Plan, *, name: str, union: bool) -> str:
    """A configuration that `ncagate train` takes; with ``union`` all labels are one structure."""
    facts = plan.facts
    volumes = f"volumes = {list(facts.volumes)}\n" if facts.volumes else ""
    segments = [(name, facts.labels)] if union else [(f"{name} {label}", (label,)) for label in facts.labels]
    levels = ",\n".join(
        f"    {{ kernel = {KERNEL}, steps = {steps}, scale = {list(scale)} }}"
        for steps, scale in zip(plan.steps, plan.scales, strict=True)
    )
    blocks = [
        f"# From {facts.scans} labelled scans, median {' x '.join(map(str, facts.shape))} voxels of "
        f"{' x '.join(f'{one:g}' for one in facts.spacing)} mm. Fill in what is marked so.",
        "seed = 1\nfolds = 5",
        f'[model]\nname = "{name}"\n{volumes}modalities = ["MR"] # fill in\nspacing_mm = {list(facts.spacing)}\n'
        'licence = "unlicensed" # fill in\nattribution = "unknown" # fill in\n'
        'intended_use = "Research only, not a medical device." # fill in',
        *(
            f'[[segments]]\nname = "{title}"\nlabels = {list(labels)}\n'
            f'code = {{ scheme = "99LOCAL", value = "{index}", meaning = "{title}" }} # fill in: a SNOMED CT code'
            for index, (title, labels) in enumerate(segments, start=1)
        ),
        f"[architecture]\nlevels = [\n{levels},\n]",
        f"[optimisation]\niterations = 5000\ncrop = {list(plan.crop)}\npatches = [\n"
        f"    {{ start = 0.0, size = {list(plan.patches[0])} }},\n"
        f"    {{ start = 0.67, size = {list(plan.patches[1])} }},\n]",
        "[augmentation]\nflip = [0.0, 0.0, 0.0] # fill in: 0.5 where a mirrored scan is as good",
        "[calibration]\nmembers = 10\nmin_dice = 0.8",
    ]
    return "\n\n".join(blocks) + "\n"


def _scales(facts: Facts) -> list[Triple]:
    """Of the levels above the finest, coarsest first."""
    shape, spacing = np.array(facts.shape, dtype=float), np.array(facts.spacing)
    scales: list[Triple] = []
    while len(scales) < LEVELS_MAX - 1 and shape.max() > COARSEST:
        halved = (spacing < ANISOTROPY * spacing.min()) & (shape / 2 >= SHORTEST)
        if not halved.any():
            break
        factor = np.where(halved, 2, 1)
        shape, spacing = shape / factor, spacing * factor
        scales.insert(0, _triple(factor.tolist()))
    return scales


def _crop(shape: Triple, factors: Sequence[int]) -> Triple:
    """The whole scan, or the longest axes cut until it is small enough; a multiple of the coarsest voxel."""
    size = [max(1, round(n / f)) * f for n, f in zip(shape, factors, strict=True)]
    while prod(size) > CROP_VOXELS_MAX:
        longest = max(range(3), key=lambda axis: size[axis] / factors[axis])
        size[longest] -= factors[longest]
    return _triple(size)


def _patch(crop: Triple, scale: Triple, voxels: int) -> Triple:
    """A box of the crop's proportions with about ``voxels`` voxels; a multiple of the next coarser level's voxel."""
    share = min(1.0, (voxels / prod(crop)) ** (1 / 3))
    return _triple(
        min(n, max(2 * KERNEL, round(n * share / s) * s)) if n > SHORTEST * 2 else n
        for n, s in zip(crop, scale, strict=True)
    )


def _triple(values: Iterable[int]) -> Triple:
    x, y, z = (int(one) for one in values)
    return x, y, z
