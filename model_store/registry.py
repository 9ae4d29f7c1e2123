"""Where versions live: a writable store, and behind it the read-only one that ships with the project.

What lies where is the matter of `model_store.stores`. A reader sees all of a version or none; nothing ever changes
inside it.
"""

from __future__ import annotations

import hashlib
import json
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
from model_store.errors import (
    CorruptVersionError,
    InvalidAliasError,
    ModelNotFoundError,
    VersionExistsError,
    VersionNotFoundError,
)
from model_store.folders import checked, is_name
from model_store.manifest import CALIBRATION_FILE, MANIFEST_FILE, REFERENCE_FILE, WEIGHTS_FILE, Manifest, Name
from model_store.reference import Reference
from model_store.stores import ALIASES_FILE, BucketStore, FolderStore, Store
from nca.conformal import Calibrated
from nca.errors import InvalidArchitectureError
from nca.network import Network
from nca.weights import validate
from ncagate.bucket import Bucket
from ncagate.settings import Settings

SHIPPED = Path(__file__).parent / "published"
PRODUCTION = "production"
CANDIDATE = "candidate"
"""What was trained here and nobody has promoted yet; it is tried in the shadow of the production one."""
MANIFEST_BYTES_MAX = 4 * 1024 * 1024
"""A manifest is a few kilobytes; a file beyond this is not one."""
WEIGHTS_BYTES_MAX = 64 * 1024 * 1024
"""A thousand times what an M3D-NCA takes."""

_HISTORIES = TypeAdapter(dict[Name, Annotated[list[Name], Field(min_length=1)]])
"""What ``aliases.json`` holds: every version an alias has pointed at, the present one last."""


class Registry:
    """Versions and aliases by name. Reading never writes; names are checked before they touch the file system."""

    def __init__(self, root: Path | Store, *, shipped: Path | None = SHIPPED) -> None:
        self._own: Store = FolderStore(root) if isinstance(root, Path) else root
        behind = [FolderStore(shipped)] if shipped is not None and shipped != root else []
        self._stores: list[Store] = [self._own, *behind]

    def names(self) -> list[str]:
        """Every model that has a version, usable or not, sorted."""
        return sorted(set().union(*(store.names() for store in self._stores)))

    def versions(self, name: str) -> list[str]:
        """Version names of a model, sorted; corrupt ones are among them.

        Raises:
            ModelNotFoundError: no such model.
        """
        checked(name, ModelNotFoundError)
        found: set[str] = set().union(*(store.versions(name) for store in self._stores))
        if not found:
            raise ModelNotFoundError(f"there is no model {name!r}")
        return sorted(found)

    def manifest(self, name: str, version: str) -> Manifest:
        """The manifest of one version.

        Raises:
            ModelNotFoundError, VersionNotFoundError: there is none.
            CorruptVersionError: it cannot be read, or belongs elsewhere.
        """
        store = self._store(name, version)
        try:
            data = store.read(name, version, MANIFEST_FILE, bytes_max=MANIFEST_BYTES_MAX)
            manifest = Manifest.model_validate_json(data)
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
        candidates = self._histories(self._own, name).get(CANDIDATE, [])
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
        if candidate:
            self._point(manifest.name, CANDIDATE, manifest.version)
        self._own.add(manifest.name, manifest.version, contents)
        return manifest

    def adopt(self, other: Registry, name: str, version: str, *, candidate: bool = False) -> Manifest:
        """Add a version as another registry has it, byte for byte; ``candidate`` as of `publish`.

        Raises:
            ModelNotFoundError, VersionNotFoundError, CorruptVersionError: it has none, or a damaged one.
            VersionExistsError: it is here already.
        """
        manifest = other.manifest(name, version)
        other.check(manifest)
        if version in self._known(name):
            raise VersionExistsError(f"{name} {version} is published already")
        store, files = other._store(name, version), (*manifest.files, CARD_FILE, MANIFEST_FILE)
        contents = {file: store.read(name, version, file, bytes_max=WEIGHTS_BYTES_MAX) for file in files}
        if candidate:
            self._point(name, CANDIDATE, version)
        self._own.add(name, version, contents)
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
        self._point(name, alias, version)

    def rollback(self, name: str, alias: str) -> str:
        """Point an alias at the version it had before; returns that version.

        Raises:
            InvalidAliasError: it never had another.
        """
        self.versions(name)
        chosen = ""

        def returned(data: bytes | None) -> bytes:
            nonlocal chosen
            histories = _histories(name, data)
            history = histories.get(alias, [])
            if len(history) < 2:
                raise InvalidAliasError(f"{name}: {alias!r} has no earlier version to return to")
            chosen = history[-2]
            self.check(self.manifest(name, chosen))
            return _encoded(histories | {alias: history[:-1]})

        self._own.change_aliases(name, returned)
        return chosen

    def _content(self, manifest: Manifest, file: str) -> bytes:
        """A version's file, if it is the one that was published."""
        label = f"{manifest.name} {manifest.version}: {file}"
        store, place = self._store(manifest.name, manifest.version), (manifest.name, manifest.version, file)
        try:
            data = store.read(*place, bytes_max=WEIGHTS_BYTES_MAX)
            if not _is_published(manifest, file, data) and store.forget(*place):
                data = store.read(*place, bytes_max=WEIGHTS_BYTES_MAX)
        except OSError as error:
            raise CorruptVersionError(f"{label} cannot be read") from error
        if not _is_published(manifest, file, data):
            raise CorruptVersionError(f"{label} is not the one that was published (sha256 differs)")
        return data

    def _store(self, name: str, version: str) -> Store:
        """The store that has this version."""
        checked(name, ModelNotFoundError)
        named = is_name(version)
        found = next((store for store in self._stores if named and store.has(name, version)), None)
        if found is None:
            self.versions(name)  # where there is not even the model, that is what to say
            raise VersionNotFoundError(f"{name} has no version {version!r}")
        return found

    def _known(self, name: str) -> list[str]:
        with suppress(ModelNotFoundError):
            return self.versions(name)
        return []

    def _point(self, name: str, alias: str, version: str) -> None:
        shipped = [self.aliases(name)[alias]] if alias in self.aliases(name) else []

        def pointed(data: bytes | None) -> bytes | None:
            histories = _histories(name, data)
            before = histories.get(alias, shipped)
            return None if before[-1:] == [version] else _encoded(histories | {alias: [*before, version]})

        self._own.change_aliases(name, pointed)

    def _histories(self, store: Store, name: str) -> dict[str, list[str]]:
        checked(name, ModelNotFoundError)
        try:
            return _histories(name, store.aliases(name))
        except OSError as error:
            raise CorruptVersionError(f"{name}: the aliases cannot be read") from error


def open_registry(settings: Settings) -> Registry:
    """The models of this deployment."""
    if settings.store_url is None:
        return Registry(settings.models)
    return Registry(BucketStore(Bucket(settings.store_url), settings.models))


def _histories(name: str, data: bytes | None) -> dict[str, list[str]]:
    try:
        return {} if data is None else _HISTORIES.validate_json(data)
    except ValidationError as error:
        raise CorruptVersionError(f"{name}: the aliases cannot be read") from error


def _encoded(histories: dict[str, list[str]]) -> bytes:
    return (json.dumps(histories, indent=2, sort_keys=True) + "\n").encode()


def _is_published(manifest: Manifest, file: str, data: bytes) -> bool:
    return hashlib.sha256(data).hexdigest() == manifest.files.get(file)


def _calibrated(manifest: Manifest, data: bytes) -> tuple[Calibrated, ...]:
    try:
        return decode(data, structures=len(manifest.structures))
    except ValueError as error:
        label = f"{manifest.name} {manifest.version}"
        raise CorruptVersionError(f"{label}: the calibration cannot be used: {error}") from error
