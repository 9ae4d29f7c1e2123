"""A training configuration: one TOML file, validated, stored whole in the manifest."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from model_store.manifest import Preprocessing, structure_names
from nca.architecture import Architecture, Level
from nca.errors import InvalidArchitectureError
from training.errors import InvalidConfigError

Voxels = tuple[PositiveInt, PositiveInt, PositiveInt]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CodedConcept(_Section):
    """A coded term, as DICOM uses them (scheme "SCT" is SNOMED CT)."""

    scheme: str
    value: str
    meaning: str


class SegmentSection(_Section):
    """One structure: the labels of the training data that make it up, and what it is called."""

    name: str
    labels: tuple[PositiveInt, ...] = Field(min_length=1)
    code: CodedConcept


class ModelSection(_Section):
    """What is published and under which terms.

    Attributes:
        volumes: those taken of scans with several (4-D), from 0, as the network's input channels; none for 3-D scans.
    """

    name: str
    volumes: tuple[NonNegativeInt, ...] = ()
    modalities: tuple[str, ...]
    spacing_mm: tuple[PositiveFloat, PositiveFloat, PositiveFloat]
    licence: str
    attribution: str
    intended_use: str


class LevelSection(_Section):
    """One level of the cascade, coarsest first; `scale` is how much coarser than the next it is."""

    kernel: PositiveInt
    steps: PositiveInt
    scale: Voxels = (1, 1, 1)


class ArchitectureSection(_Section):
    """The network (seed, section 2.2)."""

    channels: PositiveInt = 16
    hidden: PositiveInt = 64
    fire_rate: float = Field(0.5, gt=0.0, le=1.0)
    levels: tuple[LevelSection, ...]


class PatchSection(_Section):
    """From which share of the iterations on, which patch the finest level is trained on."""

    start: Fraction
    size: Voxels


class OptimisationSection(_Section):
    """How the weights are found."""

    iterations: PositiveInt
    scans_per_batch: PositiveInt = 2
    duplicates: PositiveInt = 2
    crop: Voxels
    patches: tuple[PatchSection, ...] = Field(min_length=1)
    learning_rate: PositiveFloat = 3e-3
    final_learning_rate: PositiveFloat = 1e-5
    warmup: PositiveInt = 100
    weight_decay: float = Field(1e-4, ge=0.0)
    gradient_norm: PositiveFloat = 1.0
    average: float = Field(0.998, ge=0.0, lt=1.0)
    focal_gamma: float = Field(2.0, ge=0.0)
    coarse_weight: float = Field(0.3, ge=0.0)
    checkpoint_every: PositiveInt = 250


class AugmentationSection(_Section):
    """Random changes of a crop, each drawn up to the bound given. Intensities are in standard deviations of the scan.

    Attributes:
        flip: chance of a mirrored axis.
        deformed: share of the crops whose shape is changed: by `rotation` (degrees, about each axis), `zoom`
            (share of the size) and `elastic` (mm that control points `elastic_mm` apart are moved, one deviation).
        scale, shift, gamma: of the intensities.
        bias: logarithm of a smooth multiplicative field.
        blur: standard deviation of a Gaussian, in voxels.
        noise: standard deviation.
    """

    flip: tuple[Fraction, Fraction, Fraction] = (0.5, 0.0, 0.0)
    deformed: Fraction = 0.0
    rotation: float = Field(10.0, ge=0.0)
    zoom: float = Field(0.1, ge=0.0, lt=1.0)
    elastic: float = Field(1.0, ge=0.0)
    elastic_mm: PositiveFloat = 12.0
    scale: float = Field(0.1, ge=0.0, lt=1.0)
    shift: float = Field(0.1, ge=0.0)
    gamma: float = Field(0.2, ge=0.0)
    bias: float = Field(0.0, ge=0.0)
    blur: float = Field(0.0, ge=0.0)
    noise: float = Field(0.1, ge=0.0)


class CalibrationSection(_Section):
    """How what is seen of a mask is turned into a predicted Dice, and the defaults of the verdict.

    Attributes:
        members: size of the ensemble.
        min_dice: a mask below it has failed.
        alpha: largest share of failures among what is accepted.
    """

    members: int = Field(10, ge=2)
    min_dice: float = Field(0.8, gt=0.0, lt=1.0)
    alpha: float = Field(0.05, gt=0.0, lt=1.0)


class TrainingConfig(_Section):
    """A whole training configuration.

    Attributes:
        patient: regular expression of the part of a file's name that names the patient, whose scans all stay in one
            fold; the whole name where it matches nothing.
    """

    seed: int = Field(0, ge=0, lt=2**32)
    folds: int = Field(5, ge=3)
    patient: str = ""
    model: ModelSection
    segments: tuple[SegmentSection, ...] = Field(min_length=1)
    architecture: ArchitectureSection
    optimisation: OptimisationSection
    augmentation: AugmentationSection = AugmentationSection()
    calibration: CalibrationSection = CalibrationSection()

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> TrainingConfig:
        factors = self.coarsening()
        if any(size % factor for size, factor in zip(self.optimisation.crop, factors, strict=True)):
            raise ValueError(f"the crop must be a multiple of the coarsest level's scale {factors}")
        structure_names(one.name for one in self.segments)
        try:
            re.compile(self.patient)
        except re.error as error:
            raise ValueError(f"patient is not a regular expression: {error}") from error
        if self.optimisation.patches[0].start != 0.0:
            raise ValueError("the first patch size must start at 0.0")
        return self

    def coarsening(self) -> Voxels:
        """How many finest voxels a coarsest one spans, per axis."""
        factors = [1, 1, 1]
        for level in self.architecture.levels:
            factors = [factor * scale for factor, scale in zip(factors, level.scale, strict=True)]
        return factors[0], factors[1], factors[2]

    @property
    def structures(self) -> tuple[str, ...]:
        """Names of what is judged."""
        return structure_names(one.name for one in self.segments)

    def preprocessing(self) -> Preprocessing:
        """How a scan becomes the network's input."""
        return Preprocessing(spacing_mm=self.model.spacing_mm, volumes=self.model.volumes)

    def network(self) -> Architecture:
        """The architecture that this configuration asks for."""
        section = self.architecture
        return Architecture(
            levels=tuple(Level(one.kernel, one.steps, one.scale) for one in section.levels),
            channels=section.channels,
            hidden=section.hidden,
            inputs=max(1, len(self.model.volumes)),
            outputs=len(self.segments),
            fire_rate=section.fire_rate,
        )


def load_config(path: Path) -> TrainingConfig:
    """Read and validate a TOML file.

    Raises:
        InvalidConfigError: the file is missing, is not TOML, or says something impossible.
    """
    try:
        config = TrainingConfig.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
        config.network()
    except (OSError, tomllib.TOMLDecodeError, ValidationError, InvalidArchitectureError) as error:
        raise InvalidConfigError(f"{path.name}: {error}") from error
    return config
