"""Objects in a bucket of an S3-compatible store.

Endpoint and credentials are those of the standard AWS environment (`AWS_ENDPOINT_URL_S3`, `AWS_ACCESS_KEY_ID`,
`AWS_SHARED_CREDENTIALS_FILE`, the machine's own role): there is no second way to name them here.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, TypeVar

CHUNK_BYTES = 256 * 1024
AT_ONCE = 8
"""Objects of one job on their way at once; a series has hundreds, and each is a round trip."""
CONNECT_S = 2.0
READ_S = 15.0
DELETE_MAX = 1000
"""Most keys of one DeleteObjects."""
_URL = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?P<prefix>(?:/[A-Za-z0-9._-]+)*)/?")
_MISSING = frozenset({"NoSuchKey", "404"})
_TAKEN = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412", "409"})

log = logging.getLogger(__name__)
T = TypeVar("T")


class StorageUnavailableError(Exception):
    """The store does not answer, or not as it should; ``code`` is stable and the message safe to show."""

    code: ClassVar[str] = "storage_unavailable"


@dataclass(frozen=True)
class Location:
    """A bucket and a prefix in it."""

    bucket: str
    prefix: str

    @classmethod
    def parse(cls, url: str) -> Location:
        """Of `s3://bucket/prefix`; ValueError where it is none."""
        found = _URL.fullmatch(url)
        if found is None or ".." in url:
            raise ValueError("write s3://bucket/prefix")
        return cls(bucket=found["bucket"], prefix=found["prefix"].lstrip("/"))


def checked_location(url: str | None) -> str | None:
    """The URL of a bucket as it is written; ValueError where it is none, or where the extra `s3` is not installed."""
    if url is not None:
        Location.parse(url)
        if find_spec("boto3") is None:
            raise ValueError("a bucket needs the extra: pip install 'ncagate[s3]'")
    return url


@dataclass(frozen=True)
class Info:
    """An object: its key below the prefix, its bytes, when it was written (seconds since the epoch), and its ETag."""

    key: str
    size: int
    modified: float
    etag: str


class Bucket:
    """What lies below one prefix. Thread-safe; connects when it is first used, so a fork may come before that.

    An object is put by one request and appears whole or not at all; files are streamed, never held in memory.

    Raises:
        StorageUnavailableError: from each method, where the store does not answer.
        FileNotFoundError: from each that reads one object, where it is not there.
        FileExistsError: from a conditional `put`, where the object is not as it was said to be.
    """

    def __init__(self, url: str) -> None:
        self._place = Location.parse(url)

    @cached_property
    def _client(self) -> Any:
        import boto3  # late: only a deployment with a bucket has it
        from botocore.config import Config

        config = Config(
            connect_timeout=CONNECT_S,
            read_timeout=READ_S,
            retries={"mode": "standard", "total_max_attempts": 2},
            max_pool_connections=64,
            request_checksum_calculation="when_required",  # stores that are not Amazon's know no other
            response_checksum_validation="when_required",
        )
        return boto3.session.Session().client("s3", config=config)

    def put(self, key: str, content: Path | bytes, *, new: bool = False, instead_of: str | None = None) -> None:
        """Write an object; ``new``: only where there is none; ``instead_of``: only where it still has this ETag."""
        condition = {"IfNoneMatch": "*"} if new else {} if instead_of is None else {"IfMatch": instead_of}
        with _reported():
            if isinstance(content, bytes):
                self._client.put_object(**self._at(key), Body=content, **condition)
                return
            with content.open("rb") as file:
                self._client.put_object(**self._at(key), Body=file, **condition)

    def info(self, key: str) -> Info | None:
        """What is known of an object; None where there is none."""
        try:
            with _reported():
                found = self._client.head_object(**self._at(key))
        except FileNotFoundError:
            return None
        return Info(key, found["ContentLength"], found["LastModified"].timestamp(), found["ETag"])

    def chunks(self, key: str, *, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The object's bytes from ``start`` to before ``end``, as they come."""
        if end is not None and end <= start:
            return
        part = f"bytes={start}-{'' if end is None else end - 1}"
        with _reported():
            # of an empty object no range can be had
            answer = self._client.get_object(**self._at(key), **({"Range": part} if start or end else {}))
            with closing(answer["Body"]) as body:
                yield from body.iter_chunks(CHUNK_BYTES)

    def read(self, key: str, *, bytes_max: int) -> tuple[bytes, str]:
        """A small object whole, and its ETag; OSError where it is larger."""
        with _reported():
            answer = self._client.get_object(**self._at(key))
            with closing(answer["Body"]) as body:
                data: bytes = body.read(bytes_max + 1)
        if len(data) > bytes_max:
            raise OSError("the object is too large to be what it should be")
        return data, str(answer["ETag"])

    def fetch(self, key: str, target: Path) -> None:
        """Write the object into a new file."""
        with target.open("xb") as file:
            for chunk in self.chunks(key):
                file.write(chunk)

    def list(self, prefix: str) -> Iterator[Info]:
        """All objects whose keys begin so, in the order of their keys."""
        for page in self._pages(prefix):
            for one in page.get("Contents", ()):
                yield Info(self._key(one["Key"]), one["Size"], one["LastModified"].timestamp(), one["ETag"])

    def folders(self, prefix: str) -> Iterator[str]:
        """The names between this prefix, which ends with a slash, and the next slash."""
        for page in self._pages(prefix, Delimiter="/"):
            for one in page.get("CommonPrefixes", ()):
                yield self._key(one["Prefix"])[len(prefix) : -1]

    def delete(self, prefix: str) -> int:
        """Remove all objects whose keys begin so; how many they were."""
        gone, found = 0, self.list(prefix)
        while batch := [{"Key": self._full(one.key)} for one in islice(found, DELETE_MAX)]:
            with _reported():
                wanted = {"Objects": batch, "Quiet": True}
                answer = self._client.delete_objects(Bucket=self._place.bucket, Delete=wanted)
            if answer.get("Errors"):
                raise StorageUnavailableError("the blob store does not remove what it should")
            gone += len(batch)
        return gone

    def ping(self) -> None:
        """Ask for an answer."""
        with _reported():
            self._client.list_objects_v2(Bucket=self._place.bucket, Prefix=self._full(""), MaxKeys=1)

    def _pages(self, prefix: str, **options: str) -> Iterator[dict[str, Any]]:
        with _reported():
            pages = self._client.get_paginator("list_objects_v2")
            yield from pages.paginate(Bucket=self._place.bucket, Prefix=self._full(prefix), **options)

    def _at(self, key: str) -> dict[str, str]:
        return {"Bucket": self._place.bucket, "Key": self._full(key)}

    def _full(self, key: str) -> str:
        return f"{self._place.prefix}/{key}" if self._place.prefix else key

    def _key(self, full: str) -> str:
        return full[len(self._full("")) :]


def each(work: Callable[[T], object], items: Sequence[T]) -> None:
    """Do it to all of them, some at once; raises what the first one raised."""
    with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        for _ in pool.map(work, items):
            pass


@contextmanager
def _reported() -> Iterator[None]:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        if code in _MISSING:
            raise FileNotFoundError("there is no such object") from error
        if code in _TAKEN:
            raise FileExistsError("the object is there, or another one by now") from error
        log.warning("the blob store refuses: %s", code)
        raise StorageUnavailableError(f"the blob store refuses ({code})") from error
    except BotoCoreError as error:
        log.warning("the blob store does not answer: %s", type(error).__name__)
        raise StorageUnavailableError("the blob store does not answer") from error
