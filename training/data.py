"""Labelled scans in memory, on the model's grid, split by a fixed seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imaging.grid import to_model_grid, znormalise
from imaging.limits import Limits
from imaging.nifti import read_nifti
from imaging.volume import Volume
from training.config import TrainingConfig
from training.errors import NoTrainingDataError

MIN_SCANS = 4
"""With fewer, a split into training and validation means nothing."""


@dataclass(frozen=True, eq=False)
class Case:
    """One labelled scan.

    Attributes:
        name: file name of the scan.
        volume: the scan on its own grid.
        truth: bool (segments, x, y, z) on the scan's own grid.
        image: float32 (x, y, z) on the model's grid (RAS+, the model's spacing), mean 0, deviation 1.
        target: float32 0/1 (segments, x, y, z) on the model's grid.
    """

    name: str
    volume: Volume
    truth: NDArray[np.bool_]
    image: NDArray[np.float32]
    target: NDArray[np.float32]


def find_cases(folder: Path) -> list[tuple[Path, Path]]:
    """Pairs of (image, label) files of the same name below ``folder``/images and ``folder``/labels, sorted.

    The Medical Segmentation Decathlon's imagesTr and labelsTr are understood as well.

    Raises:
        NoTrainingDataError: fewer than 4 pairs.
    """
    for images, labels in (("images", "labels"), ("imagesTr", "labelsTr")):
        files = sorted((folder / images).glob("[!.]*.nii*"))
        pairs = [(file, folder / labels / file.name) for file in files if (folder / labels / file.name).is_file()]
        if len(pairs) >= MIN_SCANS:
            return pairs
    raise NoTrainingDataError(
        f"{folder} needs at least {MIN_SCANS} scans in images/ with labels of the same name in labels/"
    )


def load_case(image_path: Path, label_path: Path, *, config: TrainingConfig) -> Case:
    """Read one scan with its labels.

    Raises:
        NoTrainingDataError: the label has another grid than the scan.
        ImagingError: a file cannot be read.
    """
    limits = Limits()
    volume = read_nifti(image_path, limits=limits, volume=config.model.volume)
    labels = read_nifti(label_path, limits=limits)
    if labels.array.shape != volume.array.shape:
        raise NoTrainingDataError(f"{image_path.name}: scan and label have different grids")
    truth = np.stack([np.isin(labels.array, segment.labels) for segment in config.segments])
    spacing = config.model.spacing_mm
    target = np.stack(
        [to_model_grid(Volume(one.astype(np.float32), volume.affine), spacing=spacing).array > 0.5 for one in truth]
    )
    image = znormalise(to_model_grid(volume, spacing=spacing).array)
    return Case(image_path.name, volume, truth, image, target.astype(np.float32))


def load_cases(folder: Path, *, config: TrainingConfig) -> list[Case]:
    """Every labelled scan of a folder, sorted by name."""
    return [load_case(image, label, config=config) for image, label in find_cases(folder)]


@dataclass(frozen=True)
class Fold:
    """One round of the cross-validation: what its network is trained on, and the scans it never sees."""

    index: int
    training: tuple[Case, ...]
    held_out: tuple[Case, ...]


def folds(cases: Sequence[Case], *, config: TrainingConfig) -> list[Fold]:
    """Every case is held out once: a permutation of the sorted names by the configuration's seed, cut in equal parts.

    Raises:
        NoTrainingDataError: fewer cases than folds.
    """
    if len(cases) < config.folds:
        raise NoTrainingDataError(f"{len(cases)} scans are too few for {config.folds} folds")
    held_out = parts(cases, config.folds, seed=config.seed)
    return [
        Fold(index, training=tuple(case for case in cases if case not in part), held_out=tuple(part))
        for index, part in enumerate(held_out)
    ]


def parts(cases: Sequence[Case], count: int, *, seed: int) -> list[list[Case]]:
    """The cases in ``count`` parts of equal size, by a permutation under a seed; in each, in their own order."""
    order = np.random.default_rng(seed).permutation(len(cases))
    return [[cases[i] for i in sorted(part.tolist())] for part in np.array_split(order, count)]
