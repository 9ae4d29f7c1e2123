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
    volume, labels = read_nifti(image_path, limits=limits), read_nifti(label_path, limits=limits)
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


def split(cases: Sequence[Case], *, config: TrainingConfig) -> tuple[list[Case], list[Case]]:
    """Training and validation part: a permutation of the sorted names by the configuration's seed."""
    order = np.random.default_rng(config.seed).permutation(len(cases))
    held_out = set(order[: max(1, round(config.validation_fraction * len(cases)))].tolist())
    training = [case for i, case in enumerate(cases) if i not in held_out]
    validation = [case for i, case in enumerate(cases) if i in held_out]
    return training, validation
