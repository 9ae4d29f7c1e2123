"""What a crash, a full disk or two writers at once leave behind."""

import errno
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from model_store import durable
from model_store import stores as stores_module
from model_store.errors import CorruptVersionError, VersionExistsError
from model_store.manifest import Manifest
from model_store.registry import Registry

Publish = Callable[..., Manifest]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "models"


@pytest.fixture
def registry(store: Path) -> Registry:
    return Registry(store, shipped=None)


class TestPublish:
    def test_a_disk_that_fills_up_leaves_nothing(
        self, store: Path, registry: Registry, publish_tiny: Publish, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(path: Path, data: bytes) -> None:
            if path.name == "manifest.json":
                raise OSError(errno.ENOSPC, "No space left on device")
            durable.write(path, data)

        monkeypatch.setattr(stores_module, "write", full)
        with pytest.raises(OSError, match="No space left"):
            publish_tiny(store)
        assert registry.names() == []
        assert list((store / "tiny").iterdir()) == []

    def test_many_at_once_leave_one(self, store: Path, registry: Registry, publish_tiny: Publish) -> None:
        def publish(seed: int) -> str:
            try:
                return publish_tiny(store, seed=seed).files["model.safetensors"]
            except VersionExistsError as error:
                return error.code

        with ThreadPoolExecutor(8) as pool:
            outcomes = list(pool.map(publish, range(8)))
        assert outcomes.count("version_exists") == 7
        (winner,) = (one for one in outcomes if one != "version_exists")
        manifest = registry.manifest("tiny", "1.0.0")
        assert manifest.files["model.safetensors"] == winner
        registry.load_network(manifest)

    def test_the_name_of_the_alias_file_is_taken(self, store: Path, publish_tiny: Publish) -> None:
        with pytest.raises(VersionExistsError):
            publish_tiny(store, version="aliases.json")

    def test_others_may_read_what_is_published(self, store: Path, publish_tiny: Publish) -> None:
        publish_tiny(store)
        folder = store / "tiny" / "1.0.0"
        assert folder.stat().st_mode & 0o777 == 0o755
        assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o644}


class TestAliases:
    def test_of_many_writers_none_is_lost(self, store: Path, registry: Registry, publish_tiny: Publish) -> None:
        publish_tiny(store)
        names = [f"alias{i}" for i in range(16)]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda name: Registry(store, shipped=None).set_alias("tiny", name, "1.0.0"), names))
        assert registry.aliases("tiny") == dict.fromkeys(names, "1.0.0")

    @pytest.mark.parametrize("text", ["", "{", '{"production": []}', '{"production": ["../up"]}', "[1]"])
    def test_a_damaged_file_is_refused_and_never_taken_for_none(
        self, store: Path, registry: Registry, publish_tiny: Publish, text: str
    ) -> None:
        publish_tiny(store)
        publish_tiny(store, name="other")
        registry.set_alias("tiny", "production", "1.0.0")
        (store / "tiny" / "aliases.json").write_text(text)
        with pytest.raises(CorruptVersionError, match="tiny: the aliases"):
            registry.resolve("tiny")
        with pytest.raises(CorruptVersionError):
            registry.set_alias("tiny", "production", "1.0.0")
        assert (store / "tiny" / "aliases.json").read_text() == text
        assert registry.resolve("other").version == "1.0.0"

    def test_a_write_that_fails_leaves_the_old_ones(
        self, store: Path, registry: Registry, publish_tiny: Publish, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        publish_tiny(store)
        registry.set_alias("tiny", "production", "1.0.0")

        def full(path: Path, data: bytes) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(durable, "write", full)
        with pytest.raises(OSError, match="No space left"):
            registry.set_alias("tiny", "staging", "1.0.0")
        assert registry.aliases("tiny") == {"production": "1.0.0"}
        assert sorted(one.name for one in (store / "tiny").iterdir()) == ["1.0.0", "aliases.json"]

    def test_the_file_holds_the_history(self, store: Path, registry: Registry, publish_tiny: Publish) -> None:
        for version in ("a", "b"):
            publish_tiny(store, version=version)
            registry.set_alias("tiny", "production", version)
        assert json.loads((store / "tiny" / "aliases.json").read_text()) == {"production": ["a", "b"]}
