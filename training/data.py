"""Labelled scans in memory, on the model's grid, split by a fixed seed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imaging.grid import to_model_grid
from imaging.limits import Limits
from imaging.nifti import read_nifti
from imaging.volume import Volume
from model_store.loaded import prepare
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
        image: float32 (inputs, x, y, z) on the model's grid (RAS+, the model's spacing), each mean 0, deviation 1.
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
    preprocessing = config.preprocessing()
    volume = read_nifti(image_path, limits=limits, volumes=preprocessing.volumes)
    labels = read_nifti(label_path, limits=limits)
    if labels.array.shape != volume.array.shape:
        raise NoTrainingDataError(f"{image_path.name}: scan and label have different grids")
    truth = np.stack([np.isin(labels.array, segment.labels) for segment in config.segments])
    spacing = preprocessing.spacing_mm
    target = np.stack(
        [to_model_grid(Volume(one.astype(np.float32), volume.affine), spacing=spacing).array > 0.5 for one in truth]
    )
    return Case(image_path.name, volume, truth, prepare(volume, preprocessing).image, target.astype(np.float32))


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
    """Every case is held out once: the patients, permuted by the configuration's seed, are cut in equal parts.

    Raises:
        NoTrainingDataError: fewer patients than folds.
    """
    held_out = parts(cases, config.folds, seed=config.seed, patient=config.patient)
    if not all(held_out):
        raise NoTrainingDataError(f"{len(cases)} scans are of too few patients for {config.folds} folds")
    return [
        Fold(index, training=tuple(case for case in cases if case not in part), held_out=tuple(part))
        for index, part in enumerate(held_out)
    ]


def parts(cases: Sequence[Case], count: int, *, seed: int, patient: str = "") -> list[list[Case]]:
    """The cases in ``count`` parts with as many patients each, by a permutation under a seed; in their own order.

    ``patient`` is `TrainingConfig.patient`: scans of one patient, much alike, are all in one part.
    """
    patients = [patient_of(case.name, patient) for case in cases]
    names = list(dict.fromkeys(patients))
    chosen = [
        {names[i] for i in part} for part in np.array_split(np.random.default_rng(seed).permutation(len(names)), count)
    ]
    return [[case for case, one in zip(cases, patients, strict=True) if one in part] for part in chosen]


def patient_of(name: str, pattern: str) -> str:
    """The part of a file's name that ``pattern`` matches; the whole name where nothing does, or without a pattern."""
    found = re.search(pattern, name) if pattern else None
    return found[0] if found else name
