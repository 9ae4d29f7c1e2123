from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from celery import Celery

from jobs.errors import BrokerUnavailableError
from jobs.queue import Broker, make_celery
from ncagate.settings import Settings


@pytest.fixture
def celery(tmp_path: Path) -> Celery:
    return make_celery(Settings(redis_url=f"redis+socket://{tmp_path}/nobody.sock", job_seconds_max=1000))


class TestMakeCelery:
    def test_the_visibility_timeout_stands_everywhere_above_the_time_limit(self, celery: Celery) -> None:
        conf = celery.conf
        places = [
            conf.visibility_timeout,
            conf.broker_transport_options["visibility_timeout"],
            conf.result_backend_transport_options["visibility_timeout"],
        ]
        assert len(set(places)) == 1
        assert places[0] > conf.task_time_limit == 1000

    def test_messages_are_json_acknowledged_late_and_taken_singly(self, celery: Celery) -> None:
        conf = celery.conf
        assert (conf.accept_content, conf.task_serializer) == (["json"], "json")
        assert (conf.task_acks_late, conf.task_reject_on_worker_lost) == (True, True)
        assert conf.worker_prefetch_multiplier == 1


class TestBrokerAway:
    @pytest.mark.parametrize("ask", [Broker.wake, Broker.waiting, Broker.ping])
    def test_every_question_says_so_quickly(self, celery: Celery, ask: Callable[[Broker], object]) -> None:
        began = time.monotonic()
        with pytest.raises(BrokerUnavailableError):
            ask(Broker(celery))
        assert time.monotonic() - began < 3.0
