"""What was taken from the objects of each series, locked, as ``<root>/identities/<series>/<instance>``.

One file an object, so that processes that receive the same series need not agree, and what comes again is not added
again. A job has links to those of its objects (`Blobs.identities`): they go when it goes, however long that takes.
"""

from __future__ import annotations

import base64
import hmac
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import UUID

from cryptography.fernet import Fernet, InvalidToken

from imaging.dicom_identity import Identity
from imaging.dicom_strip import Stripped
from model_store.durable import locked, sync
from pacs.errors import IdentityKeyError, IdentityUnreadableError, WrongIdentityKeyError

CHECK = "key-check"
"""A file that only the key of all the others opens."""
PURPOSE = b"ncagate: identifiers"


@dataclass(frozen=True)
class Taken:
    """What was taken from one object.

    Attributes:
        identity: what it was, with what routes look at; its identifiers are the original ones.
        digest: of the whole original (SHA-256).
        stripped: the values and identifiers.
    """

    identity: Identity
    digest: str
    stripped: Stripped


class Vault:
    """Locks and unlocks with one key; several processes may share one root.

    Raises:
        IdentityKeyError: the key's file cannot be read, or holds none.
        WrongIdentityKeyError: it is not the key that the others are locked with.
    """

    def __init__(self, root: Path, key_file: Path) -> None:
        self._root = root / "identities"
        key = _read_key(key_file)
        self._fernet = Fernet(key)
        self._secret = hmac.digest(base64.urlsafe_b64decode(key), PURPOSE, "sha256")
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._check()

    def uid(self, original: str) -> str:
        """The identifier that replaces another one, always the same (DICOM part 5, B.2)."""
        number = hmac.digest(self._secret, original.encode(), "sha256")[:16]
        return f"2.25.{UUID(bytes=number, version=4).int}"

    @contextmanager
    def holding(self, series: str) -> Iterator[None]:
        """Alone among all that receive objects of the series."""
        folder = self._root / series
        with ExitStack() as stack:
            while True:
                if not folder.is_dir():
                    folder.mkdir(exist_ok=True, mode=0o700)
                    sync(self._root)
                with suppress(FileNotFoundError):  # erased meanwhile
                    stack.enter_context(locked(folder))
                    if folder.is_dir():
                        break
            yield

    def put(self, series: str, name: str, taken: Taken) -> None:
        """Keep what was taken from an object durably, in place of what may be there."""
        record = {
            "identity": asdict(taken.identity),
            "digest": taken.digest,
            "stripped": asdict(taken.stripped) | {"values": base64.b64encode(taken.stripped.values).decode()},
        }
        self._write(self._root / series / name, json.dumps(record).encode())

    def get(self, series: str, name: str) -> Taken | None:
        """What was taken from the object of this name, None where nothing was.

        Raises:
            IdentityUnreadableError: the key does not open it.
        """
        path = self._root / series / name
        return self.open(path) if path.is_file() else None

    def open(self, path: Path) -> Taken:
        """What one file holds; raises as `get`."""
        try:
            record = json.loads(self._fernet.decrypt(path.read_bytes()))
        except InvalidToken:
            raise IdentityUnreadableError("an identity cannot be read: damaged, or locked with another key") from None
        stripped = record["stripped"] | {"values": base64.b64decode(record["stripped"]["values"])}
        return Taken(Identity(**record["identity"]), record["digest"], Stripped(**stripped))

    def link_into(self, series: str, files: Sequence[Path], folder: Path) -> int:
        """Put links to what was taken from these objects into ``folder``; how many there are."""
        there = [one for one in (self._root / series / file.name for file in files) if one.is_file()]
        for one in there:
            os.link(one, folder / one.name)
        return len(there)

    def discard(self, series: str, files: Sequence[Path]) -> None:
        """Forget what was taken from these objects."""
        for file in files:
            (self._root / series / file.name).unlink(missing_ok=True)

    def erase(self, series: str) -> None:
        """Forget what was taken from the whole series."""
        shutil.rmtree(self._root / series, ignore_errors=True)

    def _check(self) -> None:
        path = self._root / CHECK
        with locked(self._root):
            if not path.exists():
                self._write(path, PURPOSE)
            try:
                self._fernet.decrypt(path.read_bytes())
            except InvalidToken:
                raise WrongIdentityKeyError("identities are locked with another key than that of key_file") from None

    def _write(self, path: Path, data: bytes) -> None:
        descriptor, name = tempfile.mkstemp(prefix=".", dir=path.parent)  # for its owner alone
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(self._fernet.encrypt(data))
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
        finally:
            Path(name).unlink(missing_ok=True)
        sync(path.parent)


def _read_key(path: Path) -> bytes:
    try:
        key = path.read_bytes().strip()
    except OSError as error:
        raise IdentityKeyError(f"the key of identities cannot be read: {error.strerror}") from error
    try:
        Fernet(key)
    except ValueError:
        raise IdentityKeyError("the key of identities is none: 32 bytes in URL-safe base64 are expected") from None
    return key
