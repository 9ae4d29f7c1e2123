"""The Celery application: `ncagate worker`, which is ``celery -A worker.app worker`` with options."""

from __future__ import annotations

import os
from functools import cache
from multiprocessing.sharedctypes import RawValue
from typing import TYPE_CHECKING, Any

from celery.signals import (
    celeryd_after_setup,
    setup_logging,
    worker_process_init,
    worker_process_shutdown,
    worker_shutdown,
    worker_shutting_down,
)

from jobs.queue import CANARY_NAME, SEGMENTING, canary_queue, make_celery
from ncagate import logs, tracing
from ncagate.nodes import worker_name
from ncagate.orphans import die_with_parent
from ncagate.settings import Settings
from worker.settling import Settling, WakeUp
from worker.stopping import end_after, hand_back_when_stopped

if TYPE_CHECKING:
    from worker.run import Runner

IMPORT_S = 60.0
"""How long a new process may take to import the engine before Celery thinks it dead."""

NICE = 10
"""On a machine that is the gateway's too, who asks is answered before the computing goes on."""

STOPPING = RawValue("b", 0)
"""Set in the parent, seen in the processes that it forks; without a lock, which a killed one might take with it."""
PARENT = os.getpid()
"""The process that imports this module and then forks the workers."""
NODE = worker_name(PARENT)
"""What the worker is called, in all its processes."""

settings = Settings()
celery_app = make_celery(settings)
celery_app.conf.update(worker_proc_alive_timeout=IMPORT_S)
celery_app.steps["consumer"].add(Settling)


@cache
def runner() -> Runner:
    """This process's runner, made after the fork: no connection and no torch is shared with the parent."""
    from worker.run import Runner  # late: the parent process, and `celery inspect`, need none of it

    return Runner(settings, NODE, lambda: bool(STOPPING.value))


@celery_app.task(name=SEGMENTING.task, Request=WakeUp)
def segment() -> None:
    """Work on the job whose turn it is; its row says how it ended."""
    runner().run_next()


@setup_logging.connect
def log_as_set(**_: Any) -> None:
    """In the parent, in place of Celery's own way; its processes inherit it."""
    logs.configure("worker", settings.log_format, rooms=("worker",))


@celery_app.task(name=CANARY_NAME, Request=WakeUp)
def canary() -> None:
    """Show that this worker takes messages, and what it does reaches the database."""
    runner().presence.answer()


@celeryd_after_setup.connect
def take_canaries(instance: Any, **_: Any) -> None:
    """Take messages from this worker's own queue too."""
    instance.app.amqp.queues.select_add(canary_queue(NODE))


@worker_process_init.connect
def warm_up(**_: Any) -> None:
    """In a new worker process: never outlive the parent, and have reader and engine ready before the first job."""
    die_with_parent(PARENT)
    os.nice(NICE)
    # before an import makes a thread that the signal would end the process by
    hand_back_when_stopped(_hand_back)
    from imaging.sandbox import start_sandbox  # late, as above

    start_sandbox()
    tracing.configure("worker")  # after what is started here has been
    runner().presence.announce()
    runner().warm_up()


def _hand_back() -> None:
    """In a worker process that is ended with work in hand."""
    runner().hand_back()
    tracing.flush()


@worker_process_shutdown.connect
def say_the_rest(**_: Any) -> None:
    """In a worker process that ends: what it did is told."""
    tracing.flush()


@worker_shutting_down.connect
def bound_shutdown(**_: Any) -> None:
    """In the parent, which was told to stop."""
    STOPPING.value = 1
    end_after(settings.soft_shutdown_s, sign_off)


@worker_shutdown.connect
def sign_off(**_: Any) -> None:
    """In the parent, which forks no more, and so may open the database."""
    from jobs.database import open_database  # late, as above
    from jobs.workers import WorkerRepository, canary_s
    from worker.presence import Presence

    workers = WorkerRepository(open_database(settings.database))
    Presence(workers, NODE, every_s=canary_s(settings)).sign_off()
