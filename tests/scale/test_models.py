"""A model store in a bucket: versions appear whole, are kept once read, and an alias moves in one step."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jobs.clients import NOBODY
from jobs.database import upgrade
from jobs.datasets import ENDED_FILE, run_folder
from model_store.errors import CorruptVersionError, VersionExistsError
from model_store.loaded import load_version
from model_store.manifest import Manifest
from model_store.registry import CANDIDATE, Registry
from model_store.stores import BucketStore
from ncagate.bucket import Bucket, StorageUnavailableError
from ncagate.settings import Settings
from tests.chaos.proxy import Network
from tests.scale.s3 import S3Server
from worker.training import STORE, Trainer

Publish = Callable[..., Manifest]
VERSIONS = ("1.0.0", "1.1.0")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, publish_tiny: Publish) -> Path:
    """A store with two versions."""
    root = tmp_path_factory.mktemp("models")
    for version in VERSIONS:
        publish_tiny(root, version=version)
    return root


@pytest.fixture
def registry(bucket: Bucket, folder: Path, tmp_path: Path) -> Registry:
    """One machine's view of a bucket with both."""
    one = Registry(BucketStore(bucket, tmp_path / "cache"), shipped=None)
    for version in VERSIONS:
        one.adopt(Registry(folder, shipped=None), "tiny", version)
    return one


@pytest.fixture
def elsewhere(bucket: Bucket, tmp_path: Path) -> Registry:
    return Registry(BucketStore(bucket, tmp_path / "other cache"), shipped=None)


class TestVersions:
    def test_are_the_same_everywhere(self, registry: Registry, elsewhere: Registry) -> None:
        assert elsewhere.names() == ["tiny"]
        assert elsewhere.versions("tiny") == list(VERSIONS)
        assert load_version(elsewhere, "tiny", "1.0.0").manifest == registry.manifest("tiny", "1.0.0")

    def test_one_is_not_there_before_its_manifest_is(self, registry: Registry, bucket: Bucket) -> None:
        bucket.put("tiny/2.0.0/model.safetensors", b"half of it")
        assert registry.versions("tiny") == list(VERSIONS)

    def test_of_two_that_publish_one_the_second_changes_nothing(
        self, registry: Registry, folder: Path, bucket: Bucket
    ) -> None:
        bucket.put("tiny/2.0.0/model.safetensors", b"the first one's")
        store = BucketStore(bucket, folder / "unused")
        with pytest.raises(VersionExistsError):
            store.add("tiny", "2.0.0", {"manifest.json": b"{}", "model.safetensors": b"the second one's"})
        assert bucket.read("tiny/2.0.0/model.safetensors", bytes_max=100)[0] == b"the first one's"
        with pytest.raises(VersionExistsError):
            registry.adopt(Registry(folder, shipped=None), "tiny", "1.0.0")

    def test_a_damaged_copy_is_fetched_again(self, registry: Registry, tmp_path: Path) -> None:
        registry.check(registry.manifest("tiny", "1.0.0"))
        kept = tmp_path / "cache" / "tiny" / "1.0.0" / "model.safetensors"
        whole = kept.read_bytes()
        kept.write_bytes(whole[:-1])
        registry.check(registry.manifest("tiny", "1.0.0"))
        assert kept.read_bytes() == whole

    def test_one_that_is_damaged_in_the_bucket_is_unusable(self, registry: Registry, bucket: Bucket) -> None:
        bucket.put("tiny/1.0.0/model.safetensors", b"other weights")
        with pytest.raises(CorruptVersionError, match="sha256"):
            registry.check(registry.manifest("tiny", "1.0.0"))
        registry.check(registry.manifest("tiny", "1.1.0"))

    def test_a_bucket_that_is_away_makes_no_version_damaged(self, registry: Registry, s3: S3Server) -> None:
        s3.network.become(Network.CUT)
        with pytest.raises(StorageUnavailableError):
            registry.resolve("tiny")


class TestAliases:
    def test_one_moved_here_has_moved_there(self, registry: Registry, elsewhere: Registry) -> None:
        registry.set_alias("tiny", "production", "1.0.0")
        registry.set_alias("tiny", "production", "1.1.0")
        assert elsewhere.resolve("tiny").version == "1.1.0"
        assert elsewhere.rollback("tiny", "production") == "1.0.0"
        assert registry.resolve("tiny").version == "1.0.0"

    def test_of_many_at_once_none_is_lost(self, bucket: Bucket, registry: Registry, tmp_path: Path) -> None:
        names = [f"alias-{number}" for number in range(6)]

        def set_one(name: str) -> None:
            Registry(BucketStore(bucket, tmp_path / name), shipped=None).set_alias("tiny", name, "1.0.0")

        with ThreadPoolExecutor(len(names)) as pool:
            list(pool.map(set_one, names))
        assert registry.aliases("tiny") == dict.fromkeys(names, "1.0.0")


class TestTraining:
    def test_what_comes_of_one_is_a_candidate_everywhere(
        self, url: str, elsewhere: Registry, tmp_path: Path, publish_tiny: Publish
    ) -> None:
        (tmp_path / "datasets" / "set").mkdir(parents=True)
        settings = Settings(
            data=tmp_path / "data", datasets=tmp_path / "datasets", store_url=url, store=tmp_path / "kept"
        )
        upgrade(settings.database)
        trainer = Trainer(settings)
        training = trainer.trainings.create("0" * 32, dataset="set", config="", client=NOBODY)
        folder = run_folder(settings, training.id)
        folder.mkdir(parents=True)
        publish_tiny(folder / STORE, version="2.0.0")
        (folder / ENDED_FILE).write_text(json.dumps({"model": "tiny", "version": "2.0.0"}))
        trainer.run_next()
        ended = trainer.trainings.get(training.id)
        assert ended is not None
        assert (ended.state, ended.model, ended.version) == ("succeeded", "tiny", "2.0.0")
        assert elsewhere.aliases("tiny") == {CANDIDATE: "2.0.0"}
        elsewhere.check(elsewhere.manifest("tiny", "2.0.0"))
