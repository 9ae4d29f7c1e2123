"""The Celery app and how a job's name gets to a worker. Configuration only: the tasks are the worker's."""

from __future__ import annotations

from celery import Celery
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from jobs.errors import BrokerUnavailableError
from ncagate.settings import Settings

QUEUE = "segment"
"""Name of the queue."""
TASK_NAME = "ncagate.segment"
"""Name of the task that segments one job; its one argument is the job's identifier."""

_LOCAL_REDIS = "redis://localhost:6379/0"
_VISIBILITY_MARGIN_S = 600
_SEND_RETRIES = {"max_retries": 1, "interval_start": 0.1, "interval_step": 0.1, "interval_max": 0.2}
_CONNECT_TIMEOUT_S = 1.0
_SOCKET_TIMEOUT_S = 5.0
_HEALTH_CHECK_S = 5
"""How often a worker looks whether its connection still answers; one that a firewall forgot is replaced after twice that."""


def make_celery(settings: Settings) -> Celery:
    """The Celery app of this deployment: JSON only, acknowledged late, one message at a time, no results.

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
        task_default_queue=QUEUE,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_time_limit=settings.job_seconds_max,
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


def enqueue(celery: Celery, job_id: str) -> None:
    """Hand a job's identifier to the broker.

    Raises:
        BrokerUnavailableError: within about a second, where the broker does not take it.
    """
    try:
        celery.send_task(TASK_NAME, args=[job_id], queue=QUEUE, retry=True, retry_policy=_SEND_RETRIES)
    except (OperationalError, RedisError, OSError) as error:
        raise BrokerUnavailableError("the broker does not answer") from error


def ping(celery: Celery) -> None:
    """Ask the broker for an answer.

    Raises:
        BrokerUnavailableError: it gives none.
    """
    try:
        with celery.connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, interval_start=0.1, timeout=_CONNECT_TIMEOUT_S)
            connection.default_channel.client.ping()
    except (OperationalError, RedisError, OSError) as error:
        raise BrokerUnavailableError("the broker does not answer") from error
