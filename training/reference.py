"""What a version's jobs are compared with: its signals on the clean scans of its calibration.

    python -m training.reference --data FOLDER --store STORE --model NAME

gives a version that was published without a reference one, from the scans its manifest lists. `ncagate train` and
`ncagate calibrate` write it for what they publish.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from model_store.loaded import LoadedVersion, Prepared, load_version, prepare
from model_store.manifest import Calibration, Manifest
from model_store.reference import Reference, attach
from model_store.registry import Registry
from model_store.signals import input_signals, output_signals
from nca.gate import Observed
from training.artefacts import CLEAN, Condition
from training.config import TrainingConfig
from training.console import console, progress
from training.data import Case, load_cases
from training.outcomes import Outcome, Subject, observe_scan


def clean_reference(outcomes: Sequence[Outcome], cases: Sequence[Case], *, manifest: Manifest) -> Reference:
    """From the calibration's outcomes and its scans.

    Only clean ones count: the damaged copies teach the verdict what failure looks like, and are nothing that a
    deployment should resemble.
    """
    calibration, by_name = manifest.calibration, {case.name: case for case in cases}
    last = len(calibration.structures) - 1
    clean = [
        one
        for one in outcomes
        if one.condition.kind == CLEAN and one.structure == last and one.observed.members == calibration.members
    ]
    return Reference.of(
        {
            one.scan: signals(prepare(by_name[one.scan].volume, manifest.preprocessing), one.observed, calibration)
            for one in clean
        }
    )


def signals(prepared: Prepared, seen: Observed, calibration: Calibration) -> dict[str, float]:
    """All signals of a scan and of its mask, as the service finds them in a job of it."""
    regression = calibration.structures[-1].regression
    predicted = None if seen.evidence is None else regression.predicted_dice(seen.evidence)
    outputs = output_signals(nqm=seen.nqm, predicted_dice=predicted, volume_ml=seen.volume_ml)
    return outputs | input_signals(prepared.image, spacing=prepared.scan.spacing)


def observe_clean(version: LoadedVersion, data: Path) -> Reference:
    """The version's own signals on its calibration's scans."""
    manifest = version.manifest
    known = set(manifest.calibration.scans)
    config = TrainingConfig.model_validate(manifest.training.config)
    cases = [case for case in load_cases(data, config=config) if case.name in known]
    outcomes: list[Outcome] = []
    with progress("reference", len(cases)) as advance:
        for case in cases:
            outcomes += observe_scan(
                case.volume, case.truth, Subject.of(version), name=case.name, condition=Condition(CLEAN)
            )
            advance()
    return clean_reference(outcomes, cases, manifest=manifest)


def main(arguments: Sequence[str]) -> int:
    """Observe, write, say so."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="folder with images/ and labels/")
    parser.add_argument("--store", type=Path, required=True, help="model store whose version gets the reference")
    parser.add_argument("--model", required=True)
    chosen = parser.parse_args(arguments)
    version = load_version(Registry(chosen.store, shipped=None), chosen.model)
    reference = observe_clean(version, chosen.data)
    folder = chosen.store / version.manifest.name / version.manifest.version
    attach(folder, version.manifest, reference)
    console.print(f"{folder}: {len(reference.scans)} scans, {len(reference.signals)} signals")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
