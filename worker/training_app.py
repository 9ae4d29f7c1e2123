"""The Celery application of the trainer: `ncagate trainer`."""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING, Any

from celery.signals import setup_logging, worker_process_init, worker_shutting_down

from jobs.queue import TRAINING, make_celery
from ncagate import logs
from ncagate.orphans import die_with_parent
from ncagate.settings import Settings
from worker.settling import Settling, WakeUp
from worker.stopping import HAND_BACK_S, end_after, hand_back_when_stopped

if TYPE_CHECKING:
    from worker.training import Trainer

NICE = 15
"""Behind the workers: a scan that waits goes before a training that takes hours."""

PARENT = os.getpid()
"""The process that imports this module and then forks the one that accompanies trainings."""

settings = Settings()
celery_app = make_celery(settings, TRAINING)
celery_app.steps["consumer"].add(Settling)


@cache
def trainer() -> Trainer:
    """This process's trainer, made after the fork."""
    from worker.training import Trainer  # late: the parent process needs none of it

    return Trainer(settings)


@celery_app.task(name=TRAINING.task, Request=WakeUp)
def train() -> None:
    """Work on the training that has waited longest; its row says how it ended."""
    trainer().run_next()


@setup_logging.connect
def log_as_set(**_: Any) -> None:
    """In the parent, in place of Celery's own way; its processes inherit it."""
    logs.configure("trainer", settings.log_format, rooms=("worker",))


@worker_process_init.connect
def warm_up(**_: Any) -> None:
    """In a new process: never outlive the parent."""
    die_with_parent(PARENT)
    os.nice(NICE)
    hand_back_when_stopped(lambda: trainer().hand_back(HAND_BACK_S))


@worker_shutting_down.connect
def hand_over(**_: Any) -> None:
    """In the parent, which was told to stop: a training goes on from its checkpoint elsewhere, so nobody waits."""
    end_after(0.0)
