from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from model_store.errors import CorruptVersionError
from model_store.manifest import Manifest
from model_store.reference import Reference, attach
from model_store.registry import SHIPPED, Registry

REFERENCE = Reference(("a", "b, c"), {"nqm": (0.04, math.inf), "volume_ml": (3.25, 0.0)})
Publish = Callable[..., Manifest]


class TestReference:
    def test_what_is_written_is_what_is_read(self) -> None:
        assert Reference.decode(REFERENCE.encode()) == REFERENCE

    @pytest.mark.parametrize(
        "data", [b"", b"\n", b"scan,nqm\n", b"name,nqm\na,1\n", b"scan,nqm\na\n", b"scan,nqm\na,x\n", b"\xff"]
    )
    def test_what_is_no_such_table_is_refused(self, data: bytes) -> None:
        with pytest.raises(ValueError):  # noqa: PT011  # of several kinds
            Reference.decode(data)

    def test_a_signal_that_a_scan_lacks_is_left_out(self) -> None:
        found = Reference.of({"a": {"nqm": 1.0, "volume_ml": 2.0}, "b": {"volume_ml": 3.0}})
        assert found == Reference(("a", "b"), {"volume_ml": (2.0, 3.0)})


class TestStored:
    @pytest.fixture
    def registry(self, tmp_path: Path) -> Registry:
        return Registry(tmp_path, shipped=None)

    def test_a_version_has_the_one_it_was_published_with(
        self, registry: Registry, publish_tiny: Publish, tmp_path: Path
    ) -> None:
        assert registry.load_reference(publish_tiny(tmp_path, reference=REFERENCE)) == REFERENCE

    def test_a_version_without_is_whole(self, registry: Registry, publish_tiny: Publish, tmp_path: Path) -> None:
        manifest = publish_tiny(tmp_path)
        registry.check(manifest)
        assert registry.load_reference(manifest) is None

    def test_one_that_was_changed_makes_the_version_unusable(
        self, registry: Registry, publish_tiny: Publish, tmp_path: Path
    ) -> None:
        manifest = publish_tiny(tmp_path, reference=REFERENCE)
        (tmp_path / "tiny" / "1.0.0" / "reference.csv").write_text("scan,nqm\na,1\n")
        with pytest.raises(CorruptVersionError, match=r"reference\.csv is not the one that was published"):
            registry.check(manifest)

    def test_one_can_be_added_later(self, registry: Registry, publish_tiny: Publish, tmp_path: Path) -> None:
        before = publish_tiny(tmp_path)
        attach(tmp_path / "tiny" / "1.0.0", before, REFERENCE)
        after = registry.manifest("tiny", "1.0.0")
        registry.check(after)
        assert registry.load_reference(after) == REFERENCE
        assert after.model_copy(update={"files": before.files}) == before


class TestShipped:
    @pytest.mark.parametrize("name", ["hippocampus", "hippocampus-parts"])
    def test_is_of_the_scans_of_the_calibration_and_of_no_validation_scan(self, name: str) -> None:
        registry = Registry(SHIPPED, shipped=None)
        manifest = registry.resolve(name)
        reference = registry.load_reference(manifest)
        assert reference is not None
        assert set(reference.scans) == set(manifest.calibration.scans)
        assert not set(reference.scans) & set(manifest.validation_scans)

    def test_its_sum_is_in_the_manifest_as_it_is_written(self) -> None:
        for path in SHIPPED.glob("*/*/manifest.json"):
            assert "reference.csv" in json.loads(path.read_text())["files"]
