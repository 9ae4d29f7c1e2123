import hashlib
import json
import multiprocessing
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_store.calibration import CalibrationRow
from model_store.errors import (
    CorruptVersionError,
    InvalidAliasError,
    ModelNotFoundError,
    VersionExistsError,
    VersionNotFoundError,
)
from model_store.loaded import load_version
from model_store.manifest import Manifest
from model_store.registry import Registry
from nca.architecture import Architecture, Level
from nca.errors import InvalidArchitectureError
from nca.gate import Policy
from nca.network import Network

Publish = Callable[..., Manifest]
Rows = Callable[[Manifest], list[CalibrationRow]]
TWO = Architecture((Level(3, 3),), channels=6, hidden=8, outputs=2)
FILES = {"MODEL_CARD.md", "calibration.csv", "manifest.json", "model.safetensors"}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def registry(store: Path) -> Registry:
    return Registry(store, shipped=None)


class TestPublish:
    def test_what_is_published_is_what_is_loaded(
        self, store: Path, registry: Registry, publish_tiny: Publish, make_network: Callable[..., Network]
    ) -> None:
        published = publish_tiny(store)
        loaded = load_version(registry, "tiny")
        assert loaded.manifest == published
        for name, array in make_network().weights.items():
            np.testing.assert_array_equal(loaded.network.weights[name], array)

    def test_a_version_has_its_card_and_its_calibration_beside_it(self, store: Path, publish_tiny: Publish) -> None:
        published = publish_tiny(store)
        folder = store / "tiny" / "1.0.0"
        assert {one.name for one in folder.iterdir()} == FILES
        assert set(published.files) == {"calibration.csv", "model.safetensors"}
        assert (folder / "MODEL_CARD.md").read_text().startswith("# tiny 1.0.0\n")

    def test_a_loaded_version_judges_as_its_calibration_says(
        self, store: Path, registry: Registry, publish_tiny: Publish
    ) -> None:
        publish_tiny(store, architecture=TWO)
        loaded = load_version(registry, "tiny")
        policy = Policy(min_dice=0.8, alpha=0.05)
        assert len(loaded.gates) == len(loaded.calibrated) == 3
        assert [gate.required_dice(policy) for gate in loaded.gates] == [0.8] * 3
        assert loaded.gates[0].required_dice(Policy(min_dice=0.99, alpha=0.05)) is None
        assert {gate.members for gate in loaded.gates} == {10}

    def test_a_version_is_immutable(self, store: Path, publish_tiny: Publish) -> None:
        publish_tiny(store)
        before = (store / "tiny" / "1.0.0" / "model.safetensors").read_bytes()
        with pytest.raises(VersionExistsError):
            publish_tiny(store, seed=1)
        assert (store / "tiny" / "1.0.0" / "model.safetensors").read_bytes() == before
        assert sorted(one.name for one in (store / "tiny").iterdir()) == ["1.0.0"]

    def test_weights_that_do_not_fit_are_not_published(
        self, registry: Registry, make_manifest: Callable[..., Manifest], calibration_rows: Rows
    ) -> None:
        with pytest.raises(InvalidArchitectureError):
            registry.publish(make_manifest(), {"level0": np.zeros(3, np.float32)}, calibration_rows(make_manifest()))
        assert registry.names() == []

    def test_a_calibration_that_would_not_load_is_not_published(
        self, registry: Registry, make_manifest: Callable[..., Manifest], make_network: Callable[..., Network]
    ) -> None:
        with pytest.raises(CorruptVersionError, match="no outcomes"):
            registry.publish(make_manifest(), make_network().weights, [])
        assert registry.names() == []

    def test_a_publish_under_way_or_broken_off_is_not_seen(
        self, store: Path, registry: Registry, publish_tiny: Publish
    ) -> None:
        publish_tiny(store)
        left = store / "tiny" / ".publishing-abc"
        left.mkdir()
        (left / "manifest.json").write_text("{}")
        assert registry.versions("tiny") == ["1.0.0"]

    def test_of_two_that_race_one_wins(
        self,
        store: Path,
        registry: Registry,
        make_manifest: Callable[..., Manifest],
        make_network: Callable[..., Network],
        calibration_rows: Rows,
    ) -> None:
        context = multiprocessing.get_context("fork")
        results = context.Queue()
        manifest = make_manifest()
        arguments = (store, manifest, dict(make_network().weights), calibration_rows(manifest), results)
        racers = [context.Process(target=_publish_in_a_process, args=arguments) for _ in range(4)]
        for racer in racers:
            racer.start()
        outcomes = sorted(results.get(timeout=60) for _ in racers)
        for racer in racers:
            racer.join(timeout=60)
        assert outcomes == ["published", "version_exists", "version_exists", "version_exists"]
        assert load_version(registry, "tiny").manifest.version == "1.0.0"
        assert [one.name for one in (store / "tiny").iterdir()] == ["1.0.0"]


def _publish_in_a_process(
    store: Path, manifest: Manifest, weights: dict[str, Any], rows: list[CalibrationRow], results: Any
) -> None:
    try:
        Registry(store, shipped=None).publish(manifest, weights, rows)
        results.put("published")
    except VersionExistsError as error:
        results.put(error.code)


class TestResolve:
    def test_without_an_alias_the_newest_is_meant(self, store: Path, registry: Registry, publish_tiny: Publish) -> None:
        publish_tiny(store, version="b", created=datetime(2026, 1, 1, tzinfo=UTC))
        publish_tiny(store, version="a", created=datetime(2026, 2, 1, tzinfo=UTC))
        assert registry.resolve("tiny").version == "a"

    def test_production_comes_before_the_newest(self, store: Path, registry: Registry, publish_tiny: Publish) -> None:
        publish_tiny(store, version="a")
        publish_tiny(store, version="b", created=datetime(2026, 2, 1, tzinfo=UTC))
        registry.set_alias("tiny", "production", "a")
        assert registry.resolve("tiny").version == "a"
        assert registry.resolve("tiny", "b").version == "b"

    @pytest.mark.parametrize("name", ["nothing", "../tiny", "tiny/..", "", ".", "TINY", "a" * 65, "tiny\x00"])
    def test_a_name_that_is_none_is_not_found(
        self, store: Path, registry: Registry, publish_tiny: Publish, name: str
    ) -> None:
        publish_tiny(store)
        with pytest.raises(ModelNotFoundError):
            registry.resolve(name)

    @pytest.mark.parametrize("version", ["2.0.0", "../1.0.0", "..", "", "aliases.json"])
    def test_a_version_that_is_none_is_not_found(
        self, store: Path, registry: Registry, publish_tiny: Publish, version: str
    ) -> None:
        publish_tiny(store)
        with pytest.raises(VersionNotFoundError):
            registry.resolve("tiny", version)


class TestCandidates:
    def publish(self, store: Path, made: Manifest, version: str, network: Network, rows: Rows) -> None:
        new = made.model_copy(update={"version": version, "created": datetime(2027, 1, 1, tzinfo=UTC)})
        Registry(store, shipped=None).publish(new, network.weights, rows(new), candidate=True)

    def test_one_is_never_meant_where_nobody_says_a_version(
        self,
        store: Path,
        registry: Registry,
        publish_tiny: Publish,
        make_network: Callable[..., Network],
        calibration_rows: Rows,
    ) -> None:
        made = publish_tiny(store)
        for version in ("c1", "c2"):  # the first is a candidate no more, and all the same nobody has promoted it
            self.publish(store, made, version, make_network(), calibration_rows)
        assert registry.aliases("tiny") == {"candidate": "c2"}
        assert registry.resolve("tiny").version == "1.0.0"
        assert registry.resolve("tiny", "candidate").version == "c2"
        registry.set_alias("tiny", "production", "c1")
        assert registry.resolve("tiny").version == "c1"

    def test_a_model_of_candidates_alone_has_none_by_default(
        self,
        store: Path,
        registry: Registry,
        make_manifest: Callable[..., Manifest],
        make_network: Callable[..., Network],
        calibration_rows: Rows,
    ) -> None:
        self.publish(store, make_manifest(), "c1", make_network(), calibration_rows)
        with pytest.raises(VersionNotFoundError):
            registry.resolve("tiny")
        assert registry.resolve("tiny", "candidate").version == "c1"


class TestCorruption:
    @pytest.fixture
    def two(self, store: Path, publish_tiny: Publish) -> Path:
        publish_tiny(store, version="good", created=datetime(2026, 1, 1, tzinfo=UTC))
        publish_tiny(store, version="bad", created=datetime(2026, 2, 1, tzinfo=UTC))
        return store / "tiny" / "bad"

    def flip(self, path: Path, at: int) -> None:
        data = bytearray(path.read_bytes())
        data[at] ^= 1
        path.write_bytes(bytes(data))

    @pytest.mark.parametrize("at", [0, 9, -1])
    def test_a_flipped_bit_in_the_weights_is_refused_by_name(self, registry: Registry, two: Path, at: int) -> None:
        self.flip(two / "model.safetensors", at)
        with pytest.raises(CorruptVersionError, match="tiny bad"):
            load_version(registry, "tiny", "bad")
        assert load_version(registry, "tiny", "good").manifest.version == "good"

    @pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"format": 1}'])
    def test_a_manifest_that_cannot_be_read_is_refused_by_name(self, registry: Registry, two: Path, text: str) -> None:
        (two / "manifest.json").write_text(text)
        with pytest.raises(CorruptVersionError, match="tiny bad"):
            registry.manifest("tiny", "bad")
        assert registry.resolve("tiny").version == "good"
        assert registry.versions("tiny") == ["bad", "good"]

    @pytest.mark.parametrize("file", ["model.safetensors", "calibration.csv"])
    def test_a_missing_file_is_refused(self, registry: Registry, two: Path, file: str) -> None:
        (two / file).unlink()
        with pytest.raises(CorruptVersionError, match=f"tiny bad: {file} cannot be read"):
            load_version(registry, "tiny", "bad")
        with pytest.raises(CorruptVersionError):
            registry.check(registry.manifest("tiny", "bad"))

    def test_a_calibration_that_was_changed_is_refused(self, registry: Registry, two: Path) -> None:
        file = two / "calibration.csv"
        lines = file.read_text().splitlines(keepends=True)
        file.write_text("".join(line for line in lines if ",0.1000," not in line))  # failures left out
        with pytest.raises(CorruptVersionError, match=r"tiny bad: calibration\.csv is not the one"):
            load_version(registry, "tiny", "bad")
        assert load_version(registry, "tiny", "good").manifest.version == "good"

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "structure,scan\n0,a\n",
            "structure,scan,condition,predicted,dice,refused\n",
            "structure,scan,condition,predicted,dice,refused\n0,a,clean,0.9,nan,0\n",
            "structure,scan,condition,predicted,dice,refused\n0,a,clean,high,0.9,0\n",
            "structure,scan,condition,predicted,dice,refused\n0,a\n",
            "structure,scan,condition,predicted,dice,refused\n1,a,clean,0.9,0.9,0\n",
        ],
        ids=["empty", "other columns", "no rows", "a NaN", "a word", "a row cut off", "another structure's"],
    )
    def test_a_calibration_of_the_right_sum_that_makes_no_sense_is_refused(
        self, registry: Registry, two: Path, text: str
    ) -> None:
        (two / "calibration.csv").write_text(text)
        manifest = json.loads((two / "manifest.json").read_text())
        manifest["files"]["calibration.csv"] = hashlib.sha256(text.encode()).hexdigest()
        (two / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(CorruptVersionError, match="tiny bad: the calibration cannot be used"):
            load_version(registry, "tiny", "bad")

    def test_a_whole_version_passes_the_check(self, registry: Registry, two: Path) -> None:
        good = registry.manifest("tiny", "good")
        registry.check(good)
        self.flip(two.parent / "good" / "calibration.csv", -2)
        with pytest.raises(CorruptVersionError):
            registry.check(good)

    def test_a_version_moved_under_another_name_is_refused(self, store: Path, registry: Registry, two: Path) -> None:
        two.rename(store / "tiny" / "other")
        with pytest.raises(CorruptVersionError):
            registry.manifest("tiny", "other")

    def test_an_architecture_that_makes_no_sense_is_refused(self, registry: Registry, two: Path) -> None:
        manifest = json.loads((two / "manifest.json").read_text())
        manifest["architecture"]["levels"][0]["kernel"] = 4
        (two / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(CorruptVersionError):
            registry.manifest("tiny", "bad")

    def test_a_pickle_in_place_of_the_weights_is_never_loaded(self, registry: Registry, two: Path) -> None:
        (two / "model.safetensors").write_bytes(b"\x80\x04\x95cos\nsystem\n.")
        with pytest.raises(CorruptVersionError):
            load_version(registry, "tiny", "bad")

    @pytest.mark.parametrize("file", ["model.safetensors", "calibration.csv"])
    def test_an_alias_is_not_pointed_at_a_corrupt_version(self, registry: Registry, two: Path, file: str) -> None:
        self.flip(two / file, -1)
        with pytest.raises(CorruptVersionError):
            registry.set_alias("tiny", "production", "bad")
        assert registry.aliases("tiny") == {}


class TestAliases:
    def test_rollback_returns_to_the_version_before(
        self, store: Path, registry: Registry, publish_tiny: Publish
    ) -> None:
        for version in ("a", "b", "c"):
            publish_tiny(store, version=version)
            registry.set_alias("tiny", "production", version)
        assert registry.rollback("tiny", "production") == "b"
        assert registry.rollback("tiny", "production") == "a"
        assert registry.resolve("tiny").version == "a"
        with pytest.raises(InvalidAliasError):
            registry.rollback("tiny", "production")

    def test_setting_it_to_where_it_points_changes_nothing(
        self, store: Path, registry: Registry, publish_tiny: Publish
    ) -> None:
        for version in ("a", "b"):
            publish_tiny(store, version=version)
            registry.set_alias("tiny", "production", version)
        registry.set_alias("tiny", "production", "b")
        assert registry.rollback("tiny", "production") == "a"

    @pytest.mark.parametrize("alias", ["", "../x", "UPPER", "1.0.0"])
    def test_an_impossible_alias_is_refused(
        self, store: Path, registry: Registry, publish_tiny: Publish, alias: str
    ) -> None:
        publish_tiny(store)
        with pytest.raises(InvalidAliasError):
            registry.set_alias("tiny", alias, "1.0.0")

    def test_an_alias_needs_a_version_that_is_there(
        self, store: Path, registry: Registry, publish_tiny: Publish
    ) -> None:
        publish_tiny(store)
        with pytest.raises(VersionNotFoundError):
            registry.set_alias("tiny", "production", "2.0.0")


class TestShippedStore:
    def test_versions_and_aliases_of_both_are_seen_and_only_the_writable_one_is_written(
        self, tmp_path: Path, publish_tiny: Publish
    ) -> None:
        shipped, own = tmp_path / "shipped", tmp_path / "own"
        publish_tiny(shipped, version="s")
        Registry(shipped, shipped=None).set_alias("tiny", "production", "s")
        listing = sorted(shipped.rglob("*"))
        registry = Registry(own, shipped=shipped)
        assert registry.resolve("tiny").version == "s"
        publish_tiny(own, version="o")
        registry.set_alias("tiny", "production", "o")
        assert registry.versions("tiny") == ["o", "s"]
        assert registry.resolve("tiny").version == "o"
        assert registry.rollback("tiny", "production") == "s"
        assert registry.resolve("tiny").version == "s"
        assert sorted(shipped.rglob("*")) == listing
