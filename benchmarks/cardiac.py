"""Cardiac MRI to train on: copies whose headers say a spacing that may be true.

    python -m benchmarks.cardiac [--data FOLDER] [--out FOLDER]

The scans (M&Ms, Campello et al. 2021) come with a spacing of 1 mm on every axis, which is not real. Copies get
SPACING_MM, a usual one of short-axis cine MRI, so that what is derived from spacings (levels, millilitres) makes sense.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

SPACING_MM = (1.25, 1.25, 8.0)


def main(arguments: Sequence[str]) -> int:
    """Copy both vendors' scans and labels."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/cardiac"))
    parser.add_argument("--out", type=Path, default=Path("runs/cardiac"))
    chosen = parser.parse_args(arguments)
    count = 0
    for file in sorted(chosen.data.glob("vendor_*/*/*.nii.gz")):
        image = nib.Nifti1Image.from_filename(file)
        copy = chosen.out / file.relative_to(chosen.data)
        copy.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(np.asanyarray(image.dataobj), np.diag([*SPACING_MM, 1.0])), copy)
        count += 1
    print(f"{count} files with {' x '.join(f'{one:g}' for one in SPACING_MM)} mm in {chosen.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
