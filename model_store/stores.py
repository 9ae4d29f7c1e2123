"""What a registry reads from and publishes to: a folder, or a bucket for machines that share no disk.

<name>/<version>/manifest.json, model.safetensors, calibration.csv, reference.csv, MODEL_CARD.md
<name>/aliases.json
"""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from model_store.durable import PUBLIC_FOLDER, locked, replace, sync, write
from model_store.errors import VersionExistsError
from model_store.folders import folders, is_name, read
from model_store.manifest import MANIFEST_FILE
from ncagate.bucket import Bucket

ALIASES_FILE = "aliases.json"
ALIASES_BYTES_MAX = 4 * 1024 * 1024
"""Aliases are a few hundred bytes; a file beyond this is none."""
ALIAS_TRIES = 20
"""Somebody else's change comes between reading and writing so often only by mistake."""

Change = Callable[[bytes | None], bytes | None]
"""The aliases as they are to be, of those that are; None: as they are."""


class Store(Protocol):
    """Versions and aliases as bytes. Names have been checked."""

    def names(self) -> set[str]:
        """Models that have a version."""

    def versions(self, name: str) -> set[str]:
        """Versions of a model."""

    def has(self, name: str, version: str) -> bool:
        """Whether this version is there."""

    def read(self, name: str, version: str, file: str, *, bytes_max: int) -> bytes:
        """A file of a version; OSError where it cannot be read or is larger."""

    def forget(self, name: str, version: str, file: str) -> bool:
        """Whether a copy was kept of the file, which is not as it should be and is not kept any more."""

    def add(self, name: str, version: str, contents: Mapping[str, bytes]) -> None:
        """Add a version, which appears whole; VersionExistsError where it is there."""

    def aliases(self, name: str) -> bytes | None:
        """The aliases of a model; None where it has none."""

    def change_aliases(self, name: str, change: Change) -> None:
        """Change them in one step: of changes that race, each sees what the one before made."""


class FolderStore:
    """A `Store` in a folder: a version appears by one rename."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def names(self) -> set[str]:
        """Models that have a version."""
        return {folder.name for folder in folders(self._root) if folders(folder)}

    def versions(self, name: str) -> set[str]:
        """Versions of a model."""
        return {one.name for one in folders(self._root / name)}

    def has(self, name: str, version: str) -> bool:
        """Whether this version is there."""
        return (self._root / name / version).is_dir()

    def read(self, name: str, version: str, file: str, *, bytes_max: int) -> bytes:
        """A file of a version; OSError where it cannot be read or is larger."""
        return read(self._root / name / version / file, bytes_max)

    def forget(self, name: str, version: str, file: str) -> bool:
        """No copies are kept."""
        return False

    def add(self, name: str, version: str, contents: Mapping[str, bytes]) -> None:
        """Add a version, which appears whole; VersionExistsError where it is there."""
        parent = self._home(name)
        staged = Path(tempfile.mkdtemp(prefix=".publishing-", dir=parent))
        try:
            for file, data in contents.items():
                write(staged / file, data)
            staged.chmod(PUBLIC_FOLDER)
            sync(staged)
            _rename_new(staged, parent / version)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
        sync(parent)

    def aliases(self, name: str) -> bytes | None:
        """The aliases of a model; None where it has none."""
        with suppress(FileNotFoundError):
            return read(self._root / name / ALIASES_FILE, ALIASES_BYTES_MAX)
        return None

    def change_aliases(self, name: str, change: Change) -> None:
        """Change them in one step, alone among the processes."""
        with locked(self._home(name)):
            data = change(self.aliases(name))
            if data is not None:
                replace(self._root / name / ALIASES_FILE, data)

    def _home(self, name: str) -> Path:
        """The model's folder, made where it is missing."""
        parent = self._root / name
        parent.mkdir(parents=True, exist_ok=True)
        sync(self._root)
        return parent


class BucketStore:
    """A `Store` in a bucket; files of versions, which never change, are kept in a folder once they were read.

    A version is there once its manifest is, which is put last. The first file is put only where there is none, so that
    of two that publish one version one stops before it has touched the other's.
    """

    def __init__(self, bucket: Bucket, cache: Path) -> None:
        self._bucket, self._cache = bucket, cache

    def names(self) -> set[str]:
        """Models that have a version."""
        return {name for name in self._bucket.folders("") if is_name(name) and self.versions(name)}

    def versions(self, name: str) -> set[str]:
        """Versions of a model."""
        ends = (one.key.removeprefix(f"{name}/").split("/") for one in self._bucket.list(f"{name}/"))
        return {end[0] for end in ends if end[1:] == [MANIFEST_FILE] and is_name(end[0])}

    def has(self, name: str, version: str) -> bool:
        """Whether this version is there; one whose manifest is kept was, and versions do not go."""
        if (self._cache / name / version / MANIFEST_FILE).is_file():
            return True
        return self._bucket.info(f"{name}/{version}/{MANIFEST_FILE}") is not None

    def read(self, name: str, version: str, file: str, *, bytes_max: int) -> bytes:
        """A file of a version, the kept one where there is; OSError where it cannot be read or is larger."""
        kept = self._cache / name / version / file
        with suppress(FileNotFoundError):
            return read(kept, bytes_max)
        data, _ = self._bucket.read(f"{name}/{version}/{file}", bytes_max=bytes_max)
        kept.parent.mkdir(parents=True, exist_ok=True)
        replace(kept, data)
        return data

    def forget(self, name: str, version: str, file: str) -> bool:
        """Whether a copy was kept; it is not any more."""
        kept = self._cache / name / version / file
        there = kept.is_file()
        kept.unlink(missing_ok=True)
        return there

    def add(self, name: str, version: str, contents: Mapping[str, bytes]) -> None:
        """Add a version; VersionExistsError where it is there, or was begun."""
        files = sorted(contents, key=lambda file: file == MANIFEST_FILE)
        try:
            for number, file in enumerate(files):
                self._bucket.put(f"{name}/{version}/{file}", contents[file], new=number in (0, len(files) - 1))
        except FileExistsError as error:
            raise VersionExistsError(f"{name} {version} is published already") from error

    def aliases(self, name: str) -> bytes | None:
        """The aliases of a model; None where it has none."""
        found = self._aliases(name)
        return None if found is None else found[0]

    def change_aliases(self, name: str, change: Change) -> None:
        """Change them by a conditional put, again where another one was faster."""
        for _ in range(ALIAS_TRIES):
            found = self._aliases(name)
            data = change(None if found is None else found[0])
            if data is None:
                return
            with suppress(FileExistsError):
                key = f"{name}/{ALIASES_FILE}"
                self._bucket.put(key, data, new=found is None, instead_of=None if found is None else found[1])
                return
        raise OSError(errno.EAGAIN, "the aliases are changed by somebody else, again and again")

    def _aliases(self, name: str) -> tuple[bytes, str] | None:
        with suppress(FileNotFoundError):
            return self._bucket.read(f"{name}/{ALIASES_FILE}", bytes_max=ALIASES_BYTES_MAX)
        return None


def _rename_new(staged: Path, target: Path) -> None:
    """Rename a folder to a name that is free; of two that race, one finds it taken by a folder that is not empty."""
    try:
        staged.rename(target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise VersionExistsError(f"{target.parent.name} {target.name} is published already") from error
        raise
