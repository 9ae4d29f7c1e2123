"""The Celery application: `ncagate worker`, which is ``celery -A worker.app worker`` with options."""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING, Any

from celery.signals import worker_process_init

from jobs.queue import TASK_NAME, make_celery
from ncagate.orphans import die_with_parent
from ncagate.settings import Settings

if TYPE_CHECKING:
    from worker.run import Runner

LOG_FORMAT = "%(asctime)s %(levelname)s worker: %(message)s"
IMPORT_S = 60.0
"""How long a new process may take to import the engine before Celery thinks it dead."""

PARENT = os.getpid()
"""The process that imports this module and then forks the workers."""

settings = Settings()
celery_app = make_celery(settings)
celery_app.conf.update(
    worker_log_format=LOG_FORMAT, worker_task_log_format=LOG_FORMAT, worker_proc_alive_timeout=IMPORT_S
)


@cache
def runner() -> Runner:
    """This process's runner, made after the fork: no connection and no torch is shared with the parent."""
    from worker.run import Runner  # late: the parent process, and `celery inspect`, need none of it

    return Runner(settings)


@celery_app.task(name=TASK_NAME)
def segment() -> None:
    """Work on the job whose turn it is; its row says how it ended."""
    runner().run_next()


@worker_process_init.connect
def warm_up(**_: Any) -> None:
    """In a new worker process: never outlive the parent, and have reader and engine ready before the first job."""
    from imaging.sandbox import start_sandbox  # late, as above

    die_with_parent(PARENT)
    start_sandbox()
    runner().engine.name  # noqa: B018  # the engine is made when it is asked for
