"""The Celery app and how workers are woken. Configuration only: the task is the worker's.

A message names no job. It says that one is waiting, and the worker that gets it takes the one whose turn it is
(`jobs.turns`): so order and fairness are the database's, and no message that is lost or comes twice is about any job.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from amqp.exceptions import AMQPError
from celery import Celery
from kombu.entity import Exchange, Queue
from kombu.exceptions import OperationalError
from kombu.transport import redis
from redis.exceptions import RedisError

from jobs.errors import BrokerUnavailableError
from ncagate.settings import Settings

CANARY_NAME = "ncagate.canary"
"""Name of the task that shows that a worker works (`jobs.workers`)."""


@dataclass(frozen=True)
class Work:
    """A kind of work: what one piece is called, the queue of its wake-ups, and the task that takes up what waits."""

    noun: str
    queue: str
    task: str


SEGMENTING = Work("job", "segment", "ncagate.segment")
"""Segments the job whose turn it is."""
TRAINING = Work("training", "training", "ncagate.train")
"""Runs the training that has waited longest."""

_LOCAL_REDIS = "redis://localhost:6379/0"
_VISIBILITY_MARGIN_S = 600
_SEND_RETRIES = {"max_retries": 1, "interval_start": 0.1, "interval_step": 0.1, "interval_max": 0.2}
_CONNECT_TIMEOUT_S = 1.0
_SOCKET_TIMEOUT_S = 5.0
_HEALTH_CHECK_S = 5
"""How often a worker looks whether its connection answers; one that a firewall forgot is replaced after twice that."""


def make_celery(settings: Settings, work: Work = SEGMENTING) -> Celery:
    """The Celery app of this deployment for one kind of work: JSON only, acknowledged late, one message at a time.

    The visibility timeout, after which Redis hands an unacknowledged message out again, stands in all three
    places that read it and is longer than the hard time limit of a task.
    """
    visible = {"visibility_timeout": settings.job_seconds_max + _VISIBILITY_MARGIN_S}
    celery = Celery("ncagate", broker=settings.redis_url or _LOCAL_REDIS, set_as_current=False)
    celery.conf.update(
        task_serializer="json",
        result_serializer="json",
        event_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_default_queue=work.queue,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_time_limit=None if work is TRAINING else settings.job_seconds_max,
        worker_prefetch_multiplier=1,
        worker_soft_shutdown_timeout=settings.soft_shutdown_s,
        worker_hijack_root_logger=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,  # the row's lease decides
        broker_connection_retry_on_startup=True,
        broker_transport_options={
            **visible,
            "socket_connect_timeout": _CONNECT_TIMEOUT_S,
            "socket_timeout": _SOCKET_TIMEOUT_S,
            "health_check_interval": _HEALTH_CHECK_S,
            "max_retries": 1,
            "interval_start": 0.1,
            "interval_step": 0.1,
            "interval_max": 0.2,
        },
        result_backend_transport_options=visible,
        **visible,
    )
    return celery


def canary_queue(worker: str) -> Queue:
    """The queue that only this worker takes from."""
    return Queue(f"canary.{worker}", Exchange("canary", type="direct"), routing_key=worker)


class Broker:
    """Wakes workers; every method answers within seconds.

    Raises:
        BrokerUnavailableError: from each method, where the broker does not answer.
    """

    def __init__(self, celery: Celery) -> None:
        self._celery = celery

    def wake(self, work: Work = SEGMENTING) -> None:
        """Tell one worker that there is work."""
        with _reported():
            self._celery.send_task(work.task, queue=work.queue, retry=True, retry_policy=_SEND_RETRIES)

    def waiting(self, work: Work = SEGMENTING) -> int:
        """How many wake-ups no worker has taken yet."""
        with _reported(), self._celery.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, interval_start=0.1, timeout=_CONNECT_TIMEOUT_S)
            return int(Queue(work.queue, channel=connection.default_channel).queue_declare().message_count)

    def send_canary(self, worker: str) -> None:
        """Ask a worker to show that it works."""
        with _reported():
            self._celery.send_task(CANARY_NAME, queue=canary_queue(worker), retry=True, retry_policy=_SEND_RETRIES)

    def drop_canaries(self, worker: str) -> None:
        """Remove the queue of a worker that is no more."""
        with _reported(), self._celery.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, interval_start=0.1, timeout=_CONNECT_TIMEOUT_S)
            queue = canary_queue(worker)(connection.default_channel)
            queue.declare()  # only of what it has declared does a channel know what to remove
            queue.delete()

    def ping(self) -> None:
        """Ask for an answer."""
        with _reported(), self._celery.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, interval_start=0.1, timeout=_CONNECT_TIMEOUT_S)
            channel = connection.default_channel  # of RabbitMQ: opening it was the question
            if isinstance(channel, redis.Channel):
                channel.client.ping()

    def close(self) -> None:
        """Let go of every connection."""
        self._celery.close()


@contextmanager
def _reported() -> Iterator[None]:
    try:
        yield
    except (OperationalError, RedisError, AMQPError, OSError) as error:
        raise BrokerUnavailableError("the broker does not answer") from error
