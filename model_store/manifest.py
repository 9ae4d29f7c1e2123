"""A version's manifest: everything a service needs to run it, and a reader needs to trust it."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from nca.architecture import Architecture
from nca.quality import Line

NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,63}$"
"""Names, versions and aliases: safe as a folder, in a URL and as a metric's label."""
WEIGHTS_FILE = "model.safetensors"
MANIFEST_FILE = "manifest.json"

Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Range = tuple[float, float]
Spacing = tuple[float, float, float]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CodedConcept(_Part):
    """A coded term, as DICOM uses them (scheme "SCT" is SNOMED CT)."""

    scheme: str
    value: str
    meaning: str


class Segment(_Part):
    """One structure that the model outlines; ``label`` is its voxel value in the mask."""

    label: Annotated[int, Field(ge=1, le=255)]
    name: str
    code: CodedConcept


class Preprocessing(_Part):
    """How a scan becomes the network's input: RAS+ axes, this spacing (mm; None keeps the scan's), z-scores."""

    spacing_mm: Spacing | None
    normalisation: Literal["z-score"] = "z-score"


class IntensityQuantiles(_Part):
    """Range in which each of the ``quantiles`` of a scan's z-scored intensities is expected."""

    quantiles: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    @model_validator(mode="after")
    def _same_length(self) -> IntensityQuantiles:
        if not len(self.quantiles) == len(self.low) == len(self.high):
            raise ValueError("quantiles, low and high must have the same length")
        return self


class InputContract(_Part):
    """What the model was made for; axes are those of the model's grid (x left-right, y back-front, z down-up).

    Attributes:
        modalities: DICOM modalities; a file that names none (NIfTI) is not judged by it.
        spacing_mm: smallest and largest voxel spacing per axis.
        extent_mm: smallest and largest field of view per axis.
        intensity: quantiles of the z-scored intensities.
        volume_ml: smallest and largest plausible volume of each segment.
    """

    modalities: tuple[str, ...]
    spacing_mm: tuple[Range, Range, Range]
    extent_mm: tuple[Range, Range, Range]
    intensity: IntensityQuantiles
    volume_ml: tuple[Range, ...]


class TrainingRecord(_Part):
    """Which data and settings the weights come from; scans by file name."""

    data: str
    seed: int
    training_scans: tuple[str, ...]
    validation_scans: tuple[str, ...]
    config: dict[str, Any]
    iterations: int
    minutes: float


class Calibration(_Part):
    """The line from NQM to Dice for the default ensemble, and one line per smaller ensemble in ``lines``."""

    members: int
    slope: float
    intercept: float
    residual: float
    pearson: float
    points: int
    min_dice: float
    nqm_threshold: float
    lines: tuple[Line, ...]

    @classmethod
    def from_lines(cls, lines: tuple[Line, ...], *, min_dice: float) -> Calibration:
        """The calibration whose default is the line of the largest ensemble."""
        line = max(lines, key=lambda one: one.members)
        return cls(
            members=line.members,
            slope=line.slope,
            intercept=line.intercept,
            residual=line.residual,
            pearson=line.pearson,
            points=line.points,
            min_dice=min_dice,
            nqm_threshold=line.threshold(min_dice),
            lines=lines,
        )

    @model_validator(mode="after")
    def _default_is_one_of_the_lines(self) -> Calibration:
        line = next((one for one in self.lines if one.members == self.members), None)
        if line is None or (line.slope, line.intercept) != (self.slope, self.intercept):
            raise ValueError("the default ensemble's slope and intercept must be those of its line")
        if any(one.slope >= 0 for one in self.lines):
            raise ValueError("predicted Dice must fall as NQM rises")
        return self


MIN_AGREEMENT = 0.999
"""Mean Dice between the masks of low precision and of float32 from which on low precision may be used."""


class LowPrecision(_Part):
    """How an engine of low precision compares with float32 on the version's validation scans.

    Attributes:
        dice_mean, dice_min: Dice between the two engines' masks, on the scans' own grids.
        verdicts_changed: scans that one engine's figures accept and the other's flag.
    """

    engine: str
    scans: int
    dice_mean: float
    dice_min: float
    verdicts_changed: int

    @property
    def proven(self) -> bool:
        """Whether results do not depend on which of the two ran."""
        return self.scans > 0 and self.dice_mean >= MIN_AGREEMENT and self.verdicts_changed == 0


class Manifest(_Part):
    """One immutable version of one model."""

    format: Literal[1] = 1
    name: Name
    version: Name
    created: AwareDatetime
    code_version: str
    licence: str
    attribution: str
    intended_use: str
    architecture: Architecture
    parameters: int
    preprocessing: Preprocessing
    segments: tuple[Segment, ...]
    contract: InputContract
    training: TrainingRecord
    metrics: dict[str, Any]
    calibration: Calibration
    low_precision: LowPrecision | None = None
    files: dict[str, Sha256]

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Manifest:
        outputs = self.architecture.outputs
        if len(self.segments) != outputs or len(self.contract.volume_ml) != outputs:
            raise ValueError(f"the network has {outputs} outputs; segments and volume ranges must be as many")
        if self.parameters != self.architecture.parameter_count():
            raise ValueError("the parameter count is not that of the architecture")
        return self

    def proves(self, engine: str) -> bool:
        """Whether this engine of low precision was found to agree with float32 for this version."""
        return self.low_precision is not None and self.low_precision.engine == engine and self.low_precision.proven

    def to_json(self) -> str:
        """Stable, sorted, indented JSON."""
        return json.dumps(self.model_dump(mode="json"), indent=2, sort_keys=True) + "\n"
