"""Where versions live: a writable store, and behind it the read-only one that ships with the project.

    <store>/<name>/<version>/manifest.json, model.safetensors, calibration.csv, reference.csv, MODEL_CARD.md
    <store>/<name>/aliases.json

A version appears by one rename, so a reader sees all of it or none; nothing ever changes inside it.
"""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, save

from model_store.calibration import CalibrationRow, decode, encode
from model_store.card import CARD_FILE, model_card
from model_store.durable import PUBLIC_FOLDER, locked, replace, sync, write
from model_store.errors import (
    CorruptVersionError,
    InvalidAliasError,
    ModelNotFoundError,
    VersionExistsError,
    VersionNotFoundError,
)
from model_store.folders import checked, folders, read
from model_store.manifest import (
    CALIBRATION_FILE,
    MANIFEST_FILE,
    REFERENCE_FILE,
    WEIGHTS_FILE,
    Manifest,
    Name,
)
from model_store.reference import Reference
from nca.conformal import Calibrated
from nca.errors import InvalidArchitectureError
from nca.network import Network
from nca.weights import validate

SHIPPED = Path(__file__).parent / "published"
PRODUCTION = "production"
CANDIDATE = "candidate"
"""What was trained here and nobody has promoted yet; it is tried in the shadow of the production one."""
ALIASES_FILE = "aliases.json"
MANIFEST_BYTES_MAX = 4 * 1024 * 1024
"""A manifest is a few kilobytes; a file beyond this is not one."""
WEIGHTS_BYTES_MAX = 64 * 1024 * 1024
"""A thousand times what an M3D-NCA takes."""

_HISTORIES = TypeAdapter(dict[Name, Annotated[list[Name], Field(min_length=1)]])
"""What ``aliases.json`` holds: every version an alias has pointed at, the present one last."""


class Registry:
    """Versions and aliases by name. Reading never writes; names are checked before they touch the file system."""

    def __init__(self, root: Path, *, shipped: Path | None = SHIPPED) -> None:
        self._root = root
        self._stores = [root] + ([shipped] if shipped is not None and shipped != root else [])

    def names(self) -> list[str]:
        """Every model that has a version, usable or not, sorted."""
        found = {folder.name for store in self._stores for folder in folders(store) if folders(folder)}
        return sorted(found)

    def versions(self, name: str) -> list[str]:
        """Version names of a model, sorted; corrupt ones are among them.

        Raises:
            ModelNotFoundError: no such model.
        """
        found = {one.name for store in self._stores for one in folders(store / checked(name, ModelNotFoundError))}
        if not found:
            raise ModelNotFoundError(f"there is no model {name!r}")
        return sorted(found)

    def manifest(self, name: str, version: str) -> Manifest:
        """The manifest of one version.

        Raises:
            ModelNotFoundError, VersionNotFoundError: there is none.
            CorruptVersionError: it cannot be read, or belongs elsewhere.
        """
        path = self._folder(name, version) / MANIFEST_FILE
        try:
            manifest = Manifest.model_validate_json(read(path, MANIFEST_BYTES_MAX))
        except (OSError, ValidationError, InvalidArchitectureError) as error:
            raise CorruptVersionError(f"{name} {version}: the manifest cannot be read") from error
        if (manifest.name, manifest.version) != (name, version):
            raise CorruptVersionError(f"{name} {version}: the manifest is that of {manifest.name} {manifest.version}")
        return manifest

    def resolve(self, name: str, selector: str | None = None) -> Manifest:
        """The manifest that a version name or alias stands for; without one `production`, else the newest usable.

        What was ever a candidate is none of the latter: it serves where it is named, or once it is promoted.

        Raises:
            ModelNotFoundError, VersionNotFoundError, CorruptVersionError: as `manifest`.
        """
        versions, aliases = self.versions(name), self.aliases(name)
        if selector is not None:
            return self.manifest(name, aliases.get(selector, selector))
        if PRODUCTION in aliases:
            return self.manifest(name, aliases[PRODUCTION])
        candidates = self._histories(self._root, name).get(CANDIDATE, [])
        versions = [one for one in versions if one not in candidates]
        if not versions:
            raise VersionNotFoundError(f"{name} has no version in production, only candidates")
        usable = []
        for version in versions:
            with suppress(CorruptVersionError):
                usable.append(self.manifest(name, version))
        if not usable:
            raise CorruptVersionError(f"{name}: no version is usable")
        return max(usable, key=lambda one: one.created)

    def check(self, manifest: Manifest) -> None:
        """Raise CorruptVersionError unless every file of the version is whole and what was published."""
        self.load_network(manifest)
        self.load_calibration(manifest)
        self.load_reference(manifest)

    def load_network(self, manifest: Manifest) -> Network:
        """The weights of a version, checked against the manifest's sum and the architecture's shapes.

        Raises:
            CorruptVersionError: they do not agree.
        """
        try:
            weights = load(self._content(manifest, WEIGHTS_FILE))
            validate(manifest.architecture, weights)
        except (SafetensorError, InvalidArchitectureError) as error:
            raise CorruptVersionError(
                f"{manifest.name} {manifest.version}: the weights cannot be used: {error}"
            ) from error
        return Network(manifest.architecture, weights)

    def load_calibration(self, manifest: Manifest) -> tuple[Calibrated, ...]:
        """The calibration outcomes of a version, one `Calibrated` per structure, checked against the manifest's sum.

        Raises:
            CorruptVersionError: they do not agree.
        """
        return _calibrated(manifest, self._content(manifest, CALIBRATION_FILE))

    def load_reference(self, manifest: Manifest) -> Reference | None:
        """What a version's jobs are compared with, checked against the manifest's sum; None where it has none.

        Raises:
            CorruptVersionError: they do not agree.
        """
        if REFERENCE_FILE not in manifest.files:
            return None
        try:
            return Reference.decode(self._content(manifest, REFERENCE_FILE))
        except ValueError as error:
            label = f"{manifest.name} {manifest.version}"
            raise CorruptVersionError(f"{label}: the reference cannot be used: {error}") from error

    def publish(
        self,
        manifest: Manifest,
        weights: Mapping[str, NDArray[np.float32]],
        calibration: Sequence[CalibrationRow],
        *,
        reference: Reference | None = None,
        candidate: bool = False,
    ) -> Manifest:
        """Add a version; returns its manifest with the sums of its files filled in. It is whole or not there.

        A ``candidate`` gets that alias before it is there: at no time it is what is meant where nobody says a version.

        Raises:
            VersionExistsError: the version is there already; of two that race, one gets this.
            InvalidArchitectureError: the weights do not fit the manifest.
            CorruptVersionError: the calibration does not: a structure has no outcomes.
        """
        validate(manifest.architecture, weights)
        if manifest.version in (ALIASES_FILE, *self._known(manifest.name)):
            raise VersionExistsError(f"{manifest.name} {manifest.version} is published already")
        contents = {WEIGHTS_FILE: save(dict(weights)), CALIBRATION_FILE: encode(calibration)}
        _calibrated(manifest, contents[CALIBRATION_FILE])
        if reference is not None:
            contents[REFERENCE_FILE] = reference.encode()
        sums = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
        manifest = manifest.model_copy(update={"files": sums})
        contents |= {MANIFEST_FILE: manifest.to_json().encode(), CARD_FILE: model_card(manifest).encode()}
        parent = self._home(manifest.name)
        staged = Path(tempfile.mkdtemp(prefix=".publishing-", dir=parent))
        try:
            for name, data in contents.items():
                write(staged / name, data)
            staged.chmod(PUBLIC_FOLDER)
            sync(staged)
            if candidate:
                self._add_alias(manifest.name, CANDIDATE, manifest.version)
            _rename_new(staged, parent / manifest.version)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
        sync(parent)
        return manifest

    def aliases(self, name: str) -> dict[str, str]:
        """Alias -> version; the writable store's come before the shipped ones.

        Raises:
            ModelNotFoundError: the name is not one.
            CorruptVersionError: the aliases cannot be read.
        """
        merged: dict[str, str] = {}
        for store in reversed(self._stores):
            merged |= {alias: history[-1] for alias, history in self._histories(store, name).items()}
        return merged

    def set_alias(self, name: str, alias: str, version: str) -> None:
        """Point an alias at a version, which must be whole.

        Raises:
            InvalidAliasError, ModelNotFoundError, VersionNotFoundError, CorruptVersionError
        """
        checked(alias, InvalidAliasError)
        if alias in self.versions(name):
            raise InvalidAliasError(f"{alias!r} is the name of a version")
        self.check(self.manifest(name, version))
        self._add_alias(name, alias, version)

    def rollback(self, name: str, alias: str) -> str:
        """Point an alias at the version it had before; returns that version.

        Raises:
            InvalidAliasError: it never had another.
        """
        self.versions(name)
        with locked(self._home(name)):
            histories = self._histories(self._root, name)
            history = histories.get(alias, [])
            if len(history) < 2:
                raise InvalidAliasError(f"{name}: {alias!r} has no earlier version to return to")
            self.check(self.manifest(name, history[-2]))
            self._write_histories(name, histories | {alias: history[:-1]})
        return history[-2]

    def _content(self, manifest: Manifest, file: str) -> bytes:
        """A version's file, if it is the one that was published."""
        label = f"{manifest.name} {manifest.version}: {file}"
        try:
            data = read(self._folder(manifest.name, manifest.version) / file, WEIGHTS_BYTES_MAX)
        except OSError as error:
            raise CorruptVersionError(f"{label} cannot be read") from error
        if hashlib.sha256(data).hexdigest() != manifest.files.get(file):
            raise CorruptVersionError(f"{label} is not the one that was published (sha256 differs)")
        return data

    def _home(self, name: str) -> Path:
        """The model's folder in the writable store, made where it is missing."""
        parent = self._root / name
        parent.mkdir(parents=True, exist_ok=True)
        sync(self._root)
        return parent

    def _folder(self, name: str, version: str) -> Path:
        if version not in self.versions(name):
            raise VersionNotFoundError(f"{name} has no version {version!r}")
        return next(store / name / version for store in self._stores if (store / name / version).is_dir())

    def _known(self, name: str) -> list[str]:
        with suppress(ModelNotFoundError):
            return self.versions(name)
        return []

    def _histories(self, store: Path, name: str) -> dict[str, list[str]]:
        path = store / checked(name, ModelNotFoundError) / ALIASES_FILE
        try:
            return _HISTORIES.validate_json(read(path, MANIFEST_BYTES_MAX))
        except FileNotFoundError:
            return {}
        except (OSError, ValidationError) as error:
            raise CorruptVersionError(f"{name}: the aliases cannot be read") from error

    def _add_alias(self, name: str, alias: str, version: str) -> None:
        with locked(self._home(name)):
            histories = self._histories(self._root, name)
            shipped = [self.aliases(name)[alias]] if alias in self.aliases(name) else []
            before = histories.get(alias, shipped)
            if before[-1:] != [version]:
                self._write_histories(name, histories | {alias: [*before, version]})

    def _write_histories(self, name: str, histories: dict[str, list[str]]) -> None:
        data = (json.dumps(histories, indent=2, sort_keys=True) + "\n").encode()
        replace(self._root / name / ALIASES_FILE, data)


def _calibrated(manifest: Manifest, data: bytes) -> tuple[Calibrated, ...]:
    try:
        return decode(data, structures=len(manifest.structures))
    except ValueError as error:
        label = f"{manifest.name} {manifest.version}"
        raise CorruptVersionError(f"{label}: the calibration cannot be used: {error}") from error


def _rename_new(staged: Path, target: Path) -> None:
    """Rename a folder to a name that is free; of two that race, one finds it taken by a folder that is not empty."""
    try:
        staged.rename(target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise VersionExistsError(f"{target.parent.name} {target.name} is published already") from error
        raise
