"""A version's manifest: everything a service needs to run it, and a reader needs to trust it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from nca.architecture import Architecture
from nca.gate import Plausible, Policy, Rule
from nca.regression import Line, Regression

NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,63}$"
"""Names, versions and aliases: safe as a folder, in a URL and as a metric's label."""
WEIGHTS_FILE = "model.safetensors"
CALIBRATION_FILE = "calibration.csv"
REFERENCE_FILE = "reference.csv"
MANIFEST_FILE = "manifest.json"

UNION = "union"
"""All segments of a model with several, taken together."""

Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Range = tuple[float, float]
Spacing = tuple[float, float, float]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def structure_names(segments: Iterable[str]) -> tuple[str, ...]:
    """Names of what is judged: every segment, and where there are several their union, last.

    Raises:
        ValueError: two are the same.
    """
    names = tuple(segments)
    if len({*names, UNION}) <= len(names):
        raise ValueError(f"segments need names of their own, none of them {UNION!r}")
    return names if len(names) == 1 else (*names, UNION)


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
    """How a scan becomes the network's input: RAS+ axes, this spacing (mm; None keeps the scan's), z-scores.

    ``volumes`` are those taken of a NIfTI file with several, from 0, as the network's inputs, each with z-scores of its
    own; without any, the network has one input and such files are refused.
    """

    spacing_mm: Spacing | None
    volumes: tuple[Annotated[int, Field(ge=0)], ...] = ()
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
        volume_ml: smallest and largest plausible volume of each structure.
        border_max: largest plausible share of each structure's mask on the edge of the field of view.
    """

    modalities: tuple[str, ...]
    spacing_mm: tuple[Range, Range, Range]
    extent_mm: tuple[Range, Range, Range]
    intensity: IntensityQuantiles
    volume_ml: tuple[Range, ...]
    border_max: tuple[float, ...]

    @property
    def plausible(self) -> tuple[Plausible, ...]:
        """What each structure's mask may look like."""
        return tuple(map(Plausible, self.volume_ml, self.border_max))


class TrainingRecord(_Part):
    """Which data and settings the weights come from; scans by file name.

    Attributes:
        folds: the held-out scans of every network of the cross-validation; these weights are the first one's,
            so the first fold is what neither they nor their calibration ever saw.
    """

    data: str
    seed: int
    training_scans: tuple[str, ...]
    folds: tuple[tuple[str, ...], ...]
    config: dict[str, Any]
    iterations: int
    minutes: float


class StructureCalibration(_Part):
    """From what is seen of one structure's mask to its predicted Dice.

    Attributes:
        lines: from NQM alone, one line per ensemble size (the paper's rule).
        regression: from all evidence, for the default ensemble.
    """

    lines: tuple[Line, ...] = Field(min_length=1)
    regression: Regression

    @model_validator(mode="after")
    def _dice_falls(self) -> StructureCalibration:
        if any(one.slope >= 0 for one in self.lines):
            raise ValueError("predicted Dice must fall as NQM rises")
        return self


class Calibration(_Part):
    """What the verdict rests on; the outcomes themselves stand in calibration.csv beside the manifest.

    Attributes:
        data: which scans, in words.
        members: size of the ensemble that was calibrated.
        min_dice, alpha: what the metrics were computed for, and what holds where nobody asks for anything else.
        scans: by file name; each was judged clean and degraded by a network that was not trained on it.
        outcomes: how many.
        kinds: of conditions.
        structures: one per segment; with several segments one more for their union, last.
    """

    data: str
    members: int
    min_dice: float
    alpha: float
    scans: tuple[str, ...]
    outcomes: int
    kinds: tuple[str, ...]
    structures: tuple[StructureCalibration, ...]

    @model_validator(mode="after")
    def _default_has_a_line(self) -> Calibration:
        if any(all(line.members != self.members for line in one.lines) for one in self.structures):
            raise ValueError("the default ensemble must have a line")
        return self

    def policy(self, *, min_dice: float | None, alpha: float | None, rule: Rule) -> Policy:
        """What is asked of an accepted mask: what is given, and the version's own where it is None."""
        return Policy(self.min_dice if min_dice is None else min_dice, self.alpha if alpha is None else alpha, rule)


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

    format: Literal[2] = 2
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
        outputs, contract = self.architecture.outputs, self.contract
        if len(self.segments) != outputs:
            raise ValueError(f"the network has {outputs} outputs; segments must be as many")
        per_structure = (contract.volume_ml, contract.border_max, self.calibration.structures)
        if any(len(one) != len(self.structures) for one in per_structure):
            raise ValueError(f"volumes, border shares and calibrations must be {len(self.structures)}")
        if self.parameters != self.architecture.parameter_count():
            raise ValueError("the parameter count is not that of the architecture")
        return self

    @property
    def structures(self) -> tuple[str, ...]:
        """Names of what is judged (`structure_names`)."""
        return structure_names(segment.name for segment in self.segments)

    @property
    def validation_scans(self) -> tuple[str, ...]:
        """Scans that neither the weights nor their calibration ever saw."""
        return self.training.folds[0] if self.training.folds else ()

    def proves(self, engine: str) -> bool:
        """Whether this engine of low precision was found to agree with float32 for this version."""
        return self.low_precision is not None and self.low_precision.engine == engine and self.low_precision.proven

    def to_json(self) -> str:
        """Stable, sorted, indented JSON."""
        return json.dumps(self.model_dump(mode="json"), indent=2, sort_keys=True) + "\n"
