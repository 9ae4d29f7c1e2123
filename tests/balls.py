"""A made-up dataset that trains in seconds, and its configuration."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from imaging.nifti import write_nifti

BALL = """
folds = 3

[model]
name = "ball"
modalities = ["MR"]
spacing_mm = [1.0, 1.0, 1.0]
licence = "CC0-1.0"
attribution = "Made up for a test."
intended_use = "None."

[[segments]]
name = "ball"
labels = [1]
code = { scheme = "99TEST", value = "1", meaning = "Ball" }
"""
"""What it is about; how it is trained is up to each test."""
CONFIG = f"""
seed = 3
{BALL}
[architecture]
channels = 8
hidden = 16
levels = [{{ kernel = 3, steps = 4, scale = [2, 2, 2] }}, {{ kernel = 3, steps = 6 }}]

[optimisation]
iterations = 100
crop = [16, 16, 16]
patches = [{{ start = 0.0, size = [12, 12, 12] }}]
warmup = 10
average = 0.9
checkpoint_every = 50

[calibration]
members = 4
"""


def write_balls(folder: Path) -> Path:
    """Sixteen noisy bright balls with their labels, in the layout that training reads; the folder."""
    (folder / "images").mkdir()
    (folder / "labels").mkdir()
    grid = np.indices((18, 20, 17)).astype(np.float32)
    for number in range(16):
        rng = np.random.default_rng(number)
        centre = rng.uniform(7, 10, 3)[:, None, None, None]
        ball = (np.sqrt(((grid - centre) ** 2).sum(0)) < rng.uniform(4, 6)).astype(np.uint8)
        image = (ball * 100 + rng.normal(0, 15, ball.shape) + 200).astype(np.float32)
        write_nifti(folder / "images" / f"ball_{number:02}.nii.gz", image, np.eye(4))
        write_nifti(folder / "labels" / f"ball_{number:02}.nii.gz", ball, np.eye(4))
    return folder
