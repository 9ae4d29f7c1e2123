"""Both clients, against gateways as the tests of the service start them, or a whole service."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import pytest

from tests.chaos.proxy import FaultProxy
from tests.client.talkers import KINDS, talkers
from tests.conftest import RedisServer
from tests.e2e.conftest import Stack, scan, served
from tests.pacs.conftest import certificate
from tests.service.conftest import Service, Site, published, serve, serving

__all__ = ["certificate", "published", "scan", "serve", "served", "serving"]


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NCAGATE_URL", "NCAGATE_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def gateway(
    serving: Callable[..., AbstractContextManager[Service]],
    shared_redis: RedisServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Service]:
    """One gateway for all tests here, with a small byte budget."""
    folder = tmp_path_factory.mktemp("gateway")
    with serving(folder, redis_url=shared_redis.url, body_bytes_max=200_000, files_max=3) as running:
        yield running


@pytest.fixture
def service(gateway: Service) -> Service:
    """It, without a job."""
    for job in gateway.gateway.repository.list(limit=500):
        gateway.gateway.repository.request_cancel(job.id)
        gateway.gateway.collection.erase(job.id)
    return gateway


@pytest.fixture
def site(serve: Callable[..., Service], broker: RedisServer) -> Site:
    """A gateway of its own: where there are keys, nobody comes in without."""
    return Site(serve(redis_url=broker.url))


@pytest.fixture(params=KINDS)
def talk(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """Makes clients of either kind, closed at the end of the test."""
    with ExitStack() as stack:
        yield lambda url, **options: stack.enter_context(contextmanager(talkers)(request.param, url, **options))


@pytest.fixture
def talker(talk: Callable[..., Any], service: Service) -> Any:
    """A client of the gateway."""
    return talk(f"http://127.0.0.1:{service.port}")


@pytest.fixture
def proxy(service: Service) -> Iterator[FaultProxy]:
    """A network before the gateway that fails on demand."""
    proxy = FaultProxy(service.port)
    yield proxy
    proxy.close()


@pytest.fixture
def faulty(talk: Callable[..., Any], proxy: FaultProxy) -> Any:
    """A client behind it."""
    return talk(f"http://127.0.0.1:{proxy.port}")


@pytest.fixture(scope="session")
def stack(served: Callable[..., AbstractContextManager[Stack]]) -> Iterator[Stack]:
    """One whole service for all the tests here that need a worker."""
    with served() as running:
        yield running
