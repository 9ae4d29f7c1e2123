"""An S3 server for all tests of this folder, and stacks that share no disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from model_store.manifest import Manifest
from ncagate.bucket import Bucket
from tests.chaos.conftest import scan
from tests.chaos.processes import Fleet
from tests.chaos.proxy import Network
from tests.scale.s3 import S3Server
from tests.scale.site import Site

__all__ = ["scan"]


@pytest.fixture(scope="session")
def shared_s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    fleet = Fleet()
    try:
        server = S3Server(fleet, tmp_path_factory.mktemp("s3") / "s3.log")
        yield server
        server.close()
    finally:
        fleet.stop()


@pytest.fixture
def s3(shared_s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """The server, whom this process finds by its environment as a gateway does."""
    for name, value in shared_s3.environment.items():
        monkeypatch.setenv(name, value)
    yield shared_s3
    shared_s3.network.become(Network.FINE)


@pytest.fixture
def url(s3: S3Server) -> str:
    """A prefix in an empty bucket."""
    return f"s3://{s3.bucket()}/some/prefix"


@pytest.fixture
def bucket(url: str) -> Bucket:
    return Bucket(url)


@pytest.fixture(scope="session")
def site(
    shared_s3: S3Server, tmp_path_factory: pytest.TempPathFactory, publish_tiny: Callable[..., Manifest], scan: bytes
) -> Iterator[Site]:
    """Two gateways, two workers and what delivers, as on five machines."""
    folder = tmp_path_factory.mktemp("site")
    publish_tiny(folder / "models")
    one = Site(folder, shared_s3, scan=scan, models=folder / "models")
    try:
        yield one
    finally:
        shared_s3.network.become(Network.FINE)
        one.close()
