"""The real gateway over real HTTP, a real SQLite, a real private Redis, and no worker: the test does its work."""

from __future__ import annotations

import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from jobs.clients import NOBODY, Scope
from jobs.models import Job
from model_store.manifest import Manifest
from model_store.registry import Registry
from ncagate.settings import Settings
from service.access.keys import KeyRepository
from service.access.middleware import PUBLIC
from service.app import create_app
from service.gateway import Gateway
from service.server import server_config
from tests.service.provider import Provider

SCAN = {"scan": b"scan"}
TINY = {"model": "tiny"}
RESULT: dict[str, Any] = {
    "verdict": "flag",
    "reasons": [{"code": "nqm_above_threshold", "detail": "NQM 0.300 is above 0.152"}],
    "rule": "conformal",
    "nqm": 0.3,
    "predicted_dice": 0.66,
    "dice_interval": [0.41, 0.83],
    "required_dice": 0.8,
    "pairwise_dice": 0.7,
    "min_dice": 0.8,
    "alpha": 0.05,
    "nqm_threshold": 0.152,
    "volume_ml": 3.25,
    "members": 10,
    "model": "tiny",
    "version": "1.0.0",
    "seed": 0,
    "engine": "torch",
    "seconds": 1.5,
    "stage_seconds": {"read": 0.1, "prepare": 0.1, "segment": 1.2, "judge": 0.0, "write": 0.1},
    "warnings": [],
    "segments": [],
}


@dataclass
class Service:
    """A running gateway and how to talk to it."""

    client: httpx.Client
    gateway: Gateway
    port: int
    server: uvicorn.Server

    @property
    def blobs(self) -> Path:
        return self.gateway.settings.blobs

    def submit(self, **fields: str) -> str:
        """POST a scan; the identifier of its job."""
        answer = self.client.post("/segment", files={"scan": b"scan"}, data={"model": "tiny", **fields})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def claim(self, job_id: str) -> Job:
        """Do as a worker does first."""
        job = self.gateway.repository.claim(job_id, 60.0)
        assert job is not None
        return job

    def finish(self, job_id: str, *further: str) -> None:
        """Do all that a worker does, with ``further`` files."""
        job = self.claim(job_id)
        with self.gateway.blobs.staging() as folder:
            for name in ("mask.nii.gz", "uncertainty.nii.gz", "preview.png", *further):
                (folder / name).write_bytes(name.encode())
            self.gateway.blobs.commit_result(folder, job_id, job.attempt)
        assert self.gateway.repository.succeed(job_id, job.attempt, RESULT)

    def fail(self, job_id: str) -> None:
        """End as a worker does that cannot read the scan."""
        job = self.claim(job_id)
        assert self.gateway.repository.fail(job_id, job.attempt, "gzip_truncated", "the gzip stream ends early")

    def leftovers(self) -> list[Path]:
        """Files and folders of uploads that became no job."""
        known = [job.id for job in self.gateway.repository.list(limit=500)]
        homes = [home for home in (self.blobs / "jobs").iterdir() if home.name not in known]
        return homes + list((self.blobs / "tmp").iterdir())

    def until_clean(self) -> bool:
        """Whether nothing is left within a few seconds, and nothing under way that could leave something yet."""
        deadline = time.monotonic() + 5.0
        while not (clean := not self.server.server_state.tasks and not self.leftovers()):
            if time.monotonic() > deadline:
                break
            time.sleep(0.02)
        return clean


class Site:
    """A gateway to which several clients have keys."""

    def __init__(self, service: Service) -> None:
        self.service, self.keys = service, KeyRepository(service.gateway.repository.engine)
        self.texts = {
            "ward": self.key("ward"),
            "other": self.key("other"),
            "reader": self.key("ward", Scope.READ),
            "sender": self.key("ward", Scope.SUBMIT),
            "it": self.key("it", Scope.ADMIN),
        }

    def key(self, client: str, *scopes: Scope, **options: Any) -> str:
        return self.keys.create(client, scopes or (Scope.SUBMIT, Scope.READ), by=NOBODY, **options)[1]

    def ask(self, who: str | None, method: str, path: str, **options: Any) -> httpx.Response:
        headers = {} if who is None else {"Authorization": f"Bearer {self.texts.get(who, who)}"}
        answer: httpx.Response = self.service.client.request(
            method, path, headers={**headers, **options.pop("headers", {})}, **options
        )
        return answer

    def submit(self, who: str, **options: Any) -> str:
        answer = self.ask(who, "POST", "/segment", files=SCAN, data=TINY, **options)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def operations(self, job_id: str) -> Iterator[tuple[str, str]]:
        """Every operation of the running service that is not everybody's."""
        values = {"job_id": job_id, "name": "tiny", "version": "1.0.0", "alias": "best"}
        for path, methods in self.ask("it", "GET", "/openapi.json").json()["paths"].items():
            filled = re.sub(r"\{(\w+)\}", lambda found: values.get(found[1], "1.2.3"), path)
            yield from ((method.upper(), filled) for method in methods if path not in PUBLIC)


@contextmanager
def _served(settings: Settings) -> Iterator[Service]:
    app = create_app(settings)
    server = uvicorn.Server(server_config(app, host="127.0.0.1", port=0, stopping_s=2))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the gateway did not start"
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20.0) as client:
            yield Service(client, app.state.gateway, port, server)
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="session")
def serving(published: Path) -> Callable[..., AbstractContextManager[Service]]:
    """A gateway on a folder, with a copy of the published models and these settings, for as long as one is in it."""

    def serving(folder: Path, **settings: Any) -> AbstractContextManager[Service]:
        store = shutil.copytree(published, folder / "models", dirs_exist_ok=True)
        chosen = {"data": folder / "data", "store": store, "wait_max_s": 5.0, "reconcile_s": 0.1, **settings}
        return _served(Settings(**chosen))

    return serving


@pytest.fixture
def serve(serving: Callable[..., AbstractContextManager[Service]], tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Starts a gateway with these settings, for the length of a test."""
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(serving(tmp_path, **settings))


@pytest.fixture
def service(serve: Callable[..., Service], broker: Any) -> Service:
    """A gateway with a small byte budget."""
    return serve(redis_url=broker.url, body_bytes_max=200_000, files_max=3)


@pytest.fixture
def site(service: Service) -> Site:
    return Site(service)


@pytest.fixture
def store(service: Service) -> Path:
    """The store of the service under test."""
    return service.gateway.settings.models


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory, publish_tiny: Callable[..., Manifest]) -> Path:
    """A model store with two versions of a tiny model of random weights, the older one in production."""
    root = tmp_path_factory.mktemp("models")
    for version in ("1.0.0", "1.1.0"):
        publish_tiny(root, version=version)
    Registry(root, shipped=None).set_alias("tiny", "production", "1.0.0")
    return root


@pytest.fixture
def provider() -> Iterator[Provider]:
    provider = Provider()
    yield provider
    provider.close()
