from __future__ import annotations

from pathlib import Path

import pytest

from model_store.loaded import load_version
from model_store.registry import SHIPPED, Registry
from training.artefacts import CLEAN, Condition
from training.config import TrainingConfig
from training.data import load_case
from training.outcomes import Subject, observe_scan
from training.reference import clean_reference


class TestShipped:
    @pytest.mark.parametrize("name", ["hippocampus", "hippocampus-parts"])
    def test_a_row_is_what_the_version_makes_of_the_scan(self, name: str, shared_data: Path) -> None:
        version = load_version(Registry(SHIPPED, shipped=None), name)
        manifest, scan = version.manifest, "hippocampus_004.nii.gz"
        shipped = Registry(SHIPPED, shipped=None).load_reference(manifest)
        assert shipped is not None
        images, labels = (shared_data / "hippocampus" / part / scan for part in ("images", "labels"))
        case = load_case(images, labels, config=TrainingConfig.model_validate(manifest.training.config))
        clean = Condition(CLEAN)
        seen = observe_scan(case.volume, case.truth, Subject.of(version), name=scan, condition=clean)
        (row,) = zip(*clean_reference(seen, [case], manifest=manifest).signals.values(), strict=True)
        kept = [values[shipped.scans.index(scan)] for values in shipped.signals.values()]
        assert row == pytest.approx(kept, rel=1e-2, abs=1e-3)  # engines differ by rounding
