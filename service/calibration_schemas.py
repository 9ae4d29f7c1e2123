"""The JSON of a version's calibration."""

from __future__ import annotations

from pydantic import BaseModel, Field


class StructureOutcomes(BaseModel):
    """The calibration's outcomes of one structure: as many figures in each list, in the same order."""

    name: str
    predicted: list[float] = Field(description="Predicted Dice.")
    dice: list[float] = Field(description="True Dice.")
    refused: list[bool] = Field(description="Whether it was flagged for another reason than its predicted Dice.")


class CalibrationView(BaseModel):
    """What a version's verdict was calibrated on; no scan is named."""

    model: str
    version: str
    structures: list[StructureOutcomes]
