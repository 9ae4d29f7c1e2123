"""RabbitMQ in place of Redis: by its URL, with the same promises."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobs.errors import BrokerUnavailableError
from jobs.queue import Broker, make_celery
from model_store.manifest import Manifest
from ncagate.settings import Settings
from tests.chaos.client import Client
from tests.chaos.processes import Fleet, Part, until
from tests.chaos.servers import free_port
from tests.scale.rabbitmq import RabbitMQ

START_S = 60.0


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    fleet = Fleet()
    yield fleet
    fleet.stop()


@pytest.fixture(scope="module")
def rabbitmq(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    server = RabbitMQ(fleet, tmp_path_factory.mktemp("rabbitmq"))
    yield server
    server.close()


class TestBroker:
    def test_counts_wake_ups_and_tells_of_an_outage(self, rabbitmq: RabbitMQ) -> None:
        broker = Broker(make_celery(Settings(redis_url=rabbitmq.url)))
        broker.ping()
        before = broker.waiting()
        broker.wake()
        until(lambda: broker.waiting() == before + 1, START_S, "the message is counted")
        rabbitmq.kill()
        for call in (broker.ping, broker.wake, broker.waiting):
            with pytest.raises(BrokerUnavailableError):
                call()
        rabbitmq.revive()
        broker.ping()
        broker.close()


class TestService:
    def test_jobs_are_done_and_outlive_a_broker_that_forgets_them(
        self, rabbitmq: RabbitMQ, fleet: Fleet, tmp_path: Path, scan: bytes, publish_tiny: Callable[..., Manifest]
    ) -> None:
        publish_tiny(tmp_path / "data" / "models")
        port = free_port()
        client = Client([port], scan)
        environment = {
            "NCAGATE_DATA": str(tmp_path / "data"),
            "NCAGATE_REDIS_URL": rabbitmq.url,
            "NCAGATE_PORT": str(port),
            "NCAGATE_THREADS": "1",
            "NCAGATE_RECONCILE_S": "0.3",
            "NCAGATE_LEASE_S": "3",
        }
        for name in ("gateway", "worker"):
            log = tmp_path / f"{name}.log"
            fleet.add(Part(name, [sys.executable, "-m", "ncagate.cli", name], log=log, environment=environment))
        until(client.alive, START_S, "the gateway answers")
        client.segment()
        rabbitmq.kill()
        waiting = [client.submit(seed) for seed in range(3)]
        rabbitmq.revive()
        assert [client.finished(job_id)["state"] for job_id in waiting] == ["succeeded"] * 3
