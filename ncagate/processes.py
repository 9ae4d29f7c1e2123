"""The kinds of process of a deployment: what `ncagate gateway`, `worker`, `trainer`, `listen` and `deliver` run."""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import threading
import warnings
from typing import TYPE_CHECKING

from ncagate import logs, tracing
from ncagate.capacity import worker_processes
from ncagate.nodes import worker_name
from ncagate.settings import Settings

if TYPE_CHECKING:
    from celery import Celery

STREAMS_S = 3
"""How long a stopping gateway waits for answers under way; an event stream has no end of its own."""


def run_gateway(settings: Settings, *, fd: int | None = None) -> None:
    """Serve HTTP until SIGTERM or SIGINT, on the listening socket ``fd`` where one is handed down."""
    import uvicorn

    from service.app import create_app
    from service.server import raise_file_limit, server_config

    _log("gateway", settings, "jobs", "pacs", "service.jobs")
    raise_file_limit()
    config = server_config(create_app(settings), host=settings.host, port=settings.port, stopping_s=STREAMS_S)
    gc.freeze()  # what is there now stays: a collection that looks through it keeps every request waiting for 0.1 s
    uvicorn.Server(config).run(sockets=None if fd is None else [socket.socket(fileno=fd)])


def run_worker(settings: Settings) -> None:
    """Work on jobs until SIGTERM, after which the jobs under way are finished: ``celery -A worker.app worker``."""
    from worker.app import celery_app

    _run_celery(celery_app, processes=worker_processes(settings), name=worker_name(os.getpid()))


def run_trainer() -> None:
    """Work on trainings until SIGTERM; one under way is handed back: ``celery -A worker.training_app worker``."""
    from worker.training_app import celery_app

    _run_celery(celery_app, processes=1, name=f"trainer-{worker_name(os.getpid())}")


def _run_celery(app: Celery, *, processes: int, name: str) -> None:
    from celery.exceptions import CPendingDeprecationWarning
    from celery.platforms import SecurityWarning

    warnings.filterwarnings("ignore", category=SecurityWarning)  # root is a risk with pickle; messages here are JSON
    warnings.filterwarnings("ignore", category=CPendingDeprecationWarning)  # the setting it speaks of is made
    app.worker_main(
        [
            "--quiet",
            "worker",
            "--loglevel=WARNING",
            "--without-gossip",
            "--without-mingle",
            f"--concurrency={processes}",
            f"--hostname={name}",
        ]
    )


def run_listener(settings: Settings) -> None:
    """Take DICOM associations until SIGTERM or SIGINT."""
    from jobs.clients import Client
    from jobs.database import open_database, upgrade
    from jobs.repository import JobRepository
    from model_store.registry import open_registry
    from pacs.collect import open_collection
    from pacs.config import ListenSection, load_pacs
    from pacs.listen import Listener

    _log("listener", settings, "jobs", "pacs")
    config = load_pacs(settings.pacs)
    settings.data.mkdir(parents=True, exist_ok=True)
    upgrade(settings.database)
    jobs = JobRepository(open_database(settings.database))
    collection = open_collection(settings, config=config, jobs=jobs, registry=open_registry(settings))
    section = config.listen or ListenSection()
    if not section.calling and section.tls is None:
        logging.getLogger("pacs").warning(
            "any application entity may send series here: name those that may in `calling`"
        )
    owner = Client(section.client, frozenset(), "listener")
    Listener(section, collection.seen_by(owner)).listen_until(_stop_event())


def run_deliverer(settings: Settings) -> None:
    """Send results to archives, and word of jobs' ends to webhooks, until SIGTERM or SIGINT."""
    from jobs.database import upgrade
    from pacs.config import load_pacs
    from pacs.delivery import deliver_until

    _log("deliverer", settings, "pacs")
    config = load_pacs(settings.pacs)
    settings.data.mkdir(parents=True, exist_ok=True)
    upgrade(settings.database)
    deliver_until(_stop_event(), settings, config)


def _log(name: str, settings: Settings, *rooms: str) -> None:
    """Log warnings, and what these rooms tell. What pydicom warns of quotes values, and a name may be among them."""
    warnings.filterwarnings("ignore", module="pydicom")
    logs.configure(name, settings.log_format, rooms=rooms)
    tracing.configure(name)


def _stop_event() -> threading.Event:
    """Set by SIGTERM or SIGINT."""
    stop = threading.Event()
    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, lambda number, frame: stop.set())
    return stop
