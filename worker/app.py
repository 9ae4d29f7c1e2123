"""The Celery application: `ncagate worker`, which is ``celery -A worker.app worker`` with options."""

from __future__ import annotations

import os
import signal
import threading
import time
from functools import cache
from typing import TYPE_CHECKING, Any

from billiard import active_children
from celery.signals import celeryd_after_setup, worker_process_init, worker_shutdown, worker_shutting_down

from jobs.queue import CANARY_NAME, TASK_NAME, canary_queue, make_celery
from ncagate.nodes import worker_name
from ncagate.orphans import die_with_parent
from ncagate.settings import Settings
from worker.settling import Settling, WakeUp

if TYPE_CHECKING:
    from worker.run import Runner

LOG_FORMAT = "%(asctime)s %(levelname)s worker: %(message)s"
IMPORT_S = 60.0
"""How long a new process may take to import the engine before Celery thinks it dead."""

NICE = 10
"""On a machine that is the gateway's too, who asks is answered before the computing goes on."""
POLL_S = 0.02
HAND_BACK_S = 5.0
"""How long the processes have to hand their jobs back, once the worker waits for them no longer."""

PARENT = os.getpid()
"""The process that imports this module and then forks the workers."""
NODE = worker_name(PARENT)
"""What the worker is called, in all its processes."""

settings = Settings()
celery_app = make_celery(settings)
celery_app.conf.update(
    worker_log_format=LOG_FORMAT, worker_task_log_format=LOG_FORMAT, worker_proc_alive_timeout=IMPORT_S
)
celery_app.steps["consumer"].add(Settling)


@cache
def runner() -> Runner:
    """This process's runner, made after the fork: no connection and no torch is shared with the parent."""
    from worker.run import Runner  # late: the parent process, and `celery inspect`, need none of it

    return Runner(settings, NODE)


@celery_app.task(name=TASK_NAME, Request=WakeUp)
def segment() -> None:
    """Work on the job whose turn it is; its row says how it ended."""
    runner().run_next()


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
    _hand_back_when_stopped()  # before an import makes a thread that the signal would end the process by
    from imaging.sandbox import start_sandbox  # late, as above

    start_sandbox()
    runner().presence.announce()
    runner().engine.name  # noqa: B018  # the engine is made when it is asked for


@worker_shutting_down.connect
def bound_shutdown(**_: Any) -> None:
    """In the parent, which was told to stop and waits for its jobs: it waits so long and not longer."""
    timer = threading.Timer(settings.soft_shutdown_s, _end)
    timer.daemon = True
    timer.start()


@worker_shutdown.connect
def sign_off(**_: Any) -> None:
    """In the parent, which forks no more, and so may open the database."""
    from jobs.database import open_database  # late, as above
    from jobs.workers import WorkerRepository, canary_s
    from worker.presence import Presence

    workers = WorkerRepository(open_database(settings.database))
    Presence(workers, NODE, every_s=canary_s(settings)).sign_off()


def _end() -> None:
    children = active_children()
    for child in children:
        child.terminate()
    deadline = time.monotonic() + HAND_BACK_S
    while time.monotonic() < deadline and any(_runs(child.pid) for child in children):
        time.sleep(POLL_S)
    sign_off()
    os._exit(0)


def _runs(pid: int) -> bool:
    """Whether a child has not ended yet; it stays unreaped, as the thread that waits for it is another one's."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    except ChildProcessError:
        return False


def _hand_back_when_stopped() -> None:
    """SIGTERM is how the parent ends this process when its job takes longer than a stopping worker waits.

    A thread waits for it: the main one may be in the engine for seconds, where no handler runs.
    """

    def wait() -> None:
        signal.sigwait({signal.SIGTERM})
        try:
            runner().hand_back()
        finally:
            os._exit(0)

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=wait, name="hand-back", daemon=True).start()
