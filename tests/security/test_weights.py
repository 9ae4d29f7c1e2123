"""Weights that are code: a pickle in place of the tensors is never run, and its version alone is out of service."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model_store.errors import CorruptVersionError
from model_store.loaded import load_version
from model_store.registry import Registry


class Payload:
    """What unpickles as a call that writes a file."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.witness, "it ran")


def plain(witness: Path) -> bytes:
    return pickle.dumps(Payload(witness))


def old(witness: Path) -> bytes:
    return pickle.dumps(Payload(witness), protocol=0)


def torch_zip(witness: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save({"weight": torch.zeros(3), "payload": Payload(witness)}, buffer)
    return buffer.getvalue()


def torch_legacy(witness: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save({"payload": Payload(witness)}, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def behind_a_header(witness: Path) -> bytes:
    """A safetensors file whose data is a pickle, and whose metadata says so."""
    data = plain(witness)
    entry = {"dtype": "U8", "shape": [len(data)], "data_offsets": [0, len(data)]}
    header = json.dumps({"__metadata__": {"format": "pickle"}, "weight": entry}).encode()
    return struct.pack("<Q", len(header)) + header + data


def numpy_object(witness: Path) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, weight=np.array([Payload(witness)], dtype=object), allow_pickle=True)
    return buffer.getvalue()


KINDS: dict[str, Callable[[Path], bytes]] = {
    "pickle": plain,
    "pickle of protocol 0": old,
    "torch zip": torch_zip,
    "torch before 1.6": torch_legacy,
    "pickle behind a safetensors header": behind_a_header,
    "numpy archive": numpy_object,
}


@pytest.fixture
def disguise(tmp_path: Path) -> Callable[[str, Path], Path]:
    """Puts one of `KINDS` in place of a version's weights, its digest into the manifest: the file it would write."""

    def disguise(kind: str, version: Path) -> Path:
        witness = tmp_path / "witness"
        content = KINDS[kind](witness)
        (version / "model.safetensors").write_bytes(content)
        manifest = json.loads((version / "manifest.json").read_text())
        manifest["files"]["model.safetensors"] = hashlib.sha256(content).hexdigest()
        (version / "manifest.json").write_text(json.dumps(manifest))
        return witness

    return disguise


@pytest.fixture
def root(published: Path, tmp_path: Path) -> Path:
    return shutil.copytree(published, tmp_path / "models")


class TestDisguise:
    @pytest.mark.parametrize("kind", ["pickle", "pickle of protocol 0", "torch zip", "torch before 1.6"])
    def test_whoever_loads_it_runs_it(self, kind: str, tmp_path: Path) -> None:
        """So that the tests below would see it."""
        content = KINDS[kind](tmp_path / "witness")
        if kind.startswith("torch"):
            torch.load(io.BytesIO(content), weights_only=False)
        else:
            pickle.loads(content)
        assert (tmp_path / "witness").read_text() == "it ran"

    @pytest.mark.parametrize("kind", KINDS)
    def test_is_never_loaded_even_where_its_digest_is_right(
        self, root: Path, disguise: Callable[[str, Path], Path], kind: str
    ) -> None:
        witness = disguise(kind, root / "tiny" / "1.1.0")
        with pytest.raises(CorruptVersionError):
            load_version(Registry(root, shipped=None), "tiny", "1.1.0")
        assert not witness.exists()
        assert load_version(Registry(root, shipped=None), "tiny", "1.0.0").network

    @pytest.mark.parametrize("name", ["model.pt", "model.pkl", "pytorch_model.bin", "__init__.py", "conftest.py"])
    def test_what_lies_beside_the_weights_is_not_looked_at(self, root: Path, tmp_path: Path, name: str) -> None:
        (root / "tiny" / "1.0.0" / name).write_bytes(plain(tmp_path / "witness"))
        assert load_version(Registry(root, shipped=None), "tiny", "1.0.0").network
        assert not (tmp_path / "witness").exists()

    def test_weights_that_are_a_link_to_elsewhere_are_no_weights_of_the_manifest(self, root: Path) -> None:
        file = root / "tiny" / "1.1.0" / "model.safetensors"
        file.unlink()
        file.symlink_to("/etc/passwd")
        with pytest.raises(CorruptVersionError):
            load_version(Registry(root, shipped=None), "tiny", "1.1.0")


class TestService:
    @pytest.mark.parametrize("kind", ["pickle", "torch zip", "pickle behind a safetensors header"])
    def test_the_version_is_out_of_service_and_the_others_are_not(
        self, stack: Any, disguise: Callable[[str, Path], Path], publish_tiny: Any, scan: Path, kind: str
    ) -> None:
        version = f"9.0.{list(KINDS).index(kind)}"
        publish_tiny(stack.data / "models", version=version)
        witness = disguise(kind, stack.data / "models" / "tiny" / version)
        form = {"files": {"scan": scan.read_bytes()}, "data": {"model": "tiny", "version": version}}
        answer = stack.client.post("/segment", **form)
        if answer.status_code == 202:
            job = stack.finished(answer.headers["location"])
            assert (job["state"], job["error"]["code"]) == ("failed", "version_corrupt"), job
        else:
            assert (answer.status_code, answer.json()["code"]) == (503, "version_corrupt")
        promoted = stack.client.put("/models/tiny/aliases/production", json={"version": version})
        assert promoted.json()["code"] == "version_corrupt"
        assert stack.segment(scan, version="1.0.0")["state"] == "succeeded"
        assert not witness.exists()
