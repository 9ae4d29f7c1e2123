"""`ncagate serve`: gateway, workers and a private Redis as one supervised service."""

from __future__ import annotations

import fcntl
import http.client
import json
import logging
import os
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any, ClassVar

from kombu.exceptions import OperationalError

from model_store.durable import replace
from ncagate import logs, private_redis
from ncagate.nodes import worker_name
from ncagate.processes import STREAMS_S
from ncagate.settings import Settings
from ncagate.supervisor import Child, Program, StopSignals
from pacs.config import load_pacs
from pacs.webhook import open_webhooks

TICK_S = 0.1
READY_S = 1.5
"""How long one look at /readyz may take: meanwhile no child is tended."""
PING_S = 1.0
SLOW_START_S = 20.0
"""A service that is not ready by then says what it waits for."""
DEATHS_BEFORE_READY = 3
"""A child that dies this often before the service was ever ready will not do better."""
REDIS_STOP_S = 5.0
GATEWAY_STOP_S = 5.0
LISTENER_STOP_S = 5.0
HAND_BACK_S = 5.0
"""How long a worker has to hand its job back, once it waits for it no longer."""
NCAGATE = (sys.executable, "-m", "ncagate.cli")
LOCK_FILE = "serve.lock"
STATUS_FILE = "serve.json"

log = logging.getLogger("ncagate")


class EmbeddedError(Exception):
    """The embedded service cannot be started; ``code`` is stable."""

    code: ClassVar[str] = "embedded_error"


class AlreadyServingError(EmbeddedError):
    """Another `ncagate serve` has the data folder."""

    code = "already_serving"


class AddressUnavailableError(EmbeddedError):
    """The address cannot be bound to."""

    code = "address_unavailable"


class DataFolderError(EmbeddedError):
    """The data folder cannot be made or written to."""

    code = "data_folder_unusable"


class StartFailedError(EmbeddedError):
    """A part of the service does not start."""

    code = "start_failed"


def serve(settings: Settings) -> None:
    """Run the service until SIGINT or SIGTERM; a second one kills what does not stop at once.

    Raises:
        EmbeddedError, RedisMissingError, InvalidPacsConfigError, WebhookSecretError: it cannot be started.
    """
    logs.configure("supervisor", settings.log_format, level=logging.INFO)
    signals = StopSignals()
    signals.install()
    with ExitStack() as stack:
        settings = _changed(
            settings,
            data=settings.data.absolute(),
            pacs=settings.pacs and settings.pacs.absolute(),
            datasets=settings.datasets and settings.datasets.absolute(),
        )
        stack.enter_context(_alone(settings.data))
        listener = stack.enter_context(_listening(settings.host, settings.port))
        programs = []
        if settings.redis_url is None:
            path = stack.enter_context(private_redis.socket_path(settings.data))
            programs = [_redis(path, settings.data / private_redis.LOG_NAME)]
            settings = _changed(settings, redis_url=private_redis.url(path))
        workers = [_worker(settings), *_trainer(settings)]
        children = [*_archives(settings), _gateway(settings, listener), *workers, *programs]
        service = _Service(settings, children, listener)
        try:
            service.run(signals)
        finally:
            service.stop(signals)


def _redis(path: Path, log_file: Path) -> Program:
    log_file.unlink(missing_ok=True)
    command = private_redis.command(private_redis.find_server(), path, log=log_file)
    return Program("Redis", command, os.environ, stop_s=REDIS_STOP_S)


def _gateway(settings: Settings, listener: socket.socket) -> Program:
    descriptor = listener.fileno()
    return Program(
        "gateway",
        [*NCAGATE, "gateway", "--fd", str(descriptor)],
        _environment(settings),
        stop_s=STREAMS_S + GATEWAY_STOP_S,
        descriptors=(descriptor,),
    )


def _worker(settings: Settings) -> Program:
    stop_s = settings.soft_shutdown_s + HAND_BACK_S
    return Program("worker", [*NCAGATE, "worker"], _environment(settings), stop_s=stop_s)


def _trainer(settings: Settings) -> list[Program]:
    """What trains, where there are datasets to train on."""
    command = [*NCAGATE, "trainer"]
    return [Program("trainer", command, _environment(settings), stop_s=2 * HAND_BACK_S)] if settings.datasets else []


def _archives(settings: Settings) -> list[Program]:
    """The processes that speak with archives and webhooks, as far as the deployment asks for them."""
    config, environment = load_pacs(settings.pacs), _environment(settings)
    programs = []
    if config.deidentify is not None:
        from pacs.vault import Vault  # late, as most never need it

        Vault(settings.blobs, config.deidentify.key_file)  # every child would fail without its key
    if config.listen is not None:
        programs.append(Program("listener", [*NCAGATE, "listen"], environment, stop_s=LISTENER_STOP_S))
    webhooks = open_webhooks(settings)
    attempts_s = [one.timeout_s for one in (*config.destination, webhooks) if one is not None]
    if attempts_s:
        stop_s = max(attempts_s)
        programs.append(Program("deliverer", [*NCAGATE, "deliver"], environment, stop_s=stop_s))
    return programs


def _changed(settings: Settings, **changes: Any) -> Settings:
    return Settings(**{**settings.model_dump(exclude_unset=True), **changes})


def _environment(settings: Settings) -> Mapping[str, str]:
    """The children's environment: the settings in force, whether they came from here, a default or the caller."""
    chosen = {name: value for name, value in settings.model_dump(mode="json").items() if value is not None}
    return os.environ | {f"NCAGATE_{name.upper()}": str(value) for name, value in chosen.items()}


@contextmanager
def _alone(data: Path) -> Iterator[None]:
    """Hold the data folder; the kernel lets go of it with this process, however that ends."""
    try:
        data.mkdir(parents=True, exist_ok=True)
        lock = (data / LOCK_FILE).open("a+")
    except OSError as error:
        raise DataFolderError(f"cannot use {data} as the data folder: {error.strerror or error}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            owner = lock.read(16).strip() or "unknown"
            raise AlreadyServingError(f"another `ncagate serve` (process {owner}) uses {data}") from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        (data / STATUS_FILE).unlink(missing_ok=True)
        try:
            yield
        finally:
            (data / STATUS_FILE).unlink(missing_ok=True)


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """The gateway's socket. It is the supervisor's, so clients only wait while a dead gateway is replaced."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        why = str(error.strerror or error).partition(" (while")[0]  # the rest repeats the address
        raise AddressUnavailableError(f"cannot listen on {host} port {port}: {why}") from error
    with listener:
        yield listener


class _Service:
    """The children, stopped in their order and started in the reverse, and whether they do their work."""

    def __init__(self, settings: Settings, programs: Sequence[Program], listener: socket.socket) -> None:
        self._settings = settings
        self._children = [Child(program) for program in programs]
        self._address = listener.getsockname()[:2]
        self._started_at = time.monotonic()
        self._ready = self._told_slow = False

    def run(self, signals: StopSignals) -> None:
        """Start the children and tend them until a signal comes.

        Raises:
            StartFailedError: one of them died again and again before the service was ready.
        """
        for child in reversed(self._children):
            child.start()
        while not signals.wait(TICK_S):
            restarted = [child.tend() for child in self._children]
            if self._ready and any(restarted):
                self._write_status()
            if not self._ready:
                self._look(signals)

    def stop(self, signals: StopSignals) -> None:
        """Stop what speaks with archives, the gateway, then the worker, which may finish its job, then Redis."""
        (self._settings.data / STATUS_FILE).unlink(missing_ok=True)
        for child in self._children:
            child.stop(signals)

    def _look(self, signals: StopSignals) -> None:
        """Say so once the service is ready, or what it waits for when that takes long."""
        for child in self._children:
            if child.deaths >= DEATHS_BEFORE_READY:
                raise StartFailedError(
                    f"the {child.program.name} does not start; its messages above, or in redis.log, say why"
                )
        missing = self._missing()
        if signals.wait(0):  # while it looked
            return
        if missing is None:
            self._ready = True
            self._write_status()
            print(f"ncagate is ready on {self._url}   data: {self._settings.data}   Ctrl-C stops it", flush=True)
        elif not self._told_slow and time.monotonic() - self._started_at > SLOW_START_S:
            self._told_slow = True
            log.warning("%s is up but not ready: %s", self._url, missing)

    def _missing(self) -> str | None:
        """What the service lacks to work; None where it is ready."""
        for child in self._children:
            if child.pid is None:
                return f"the {child.program.name} does not run"
        return _gateway_lacks(*self._address) or _worker_lacks(self._settings, self._pids()["worker"])

    @property
    def _url(self) -> str:
        host, port = self._address
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # shown, not bound to
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def _pids(self) -> dict[str, int]:
        return {child.program.name: child.pid for child in self._children if child.pid is not None}

    def _write_status(self) -> None:
        status = {"url": self._url, "pid": os.getpid(), "pids": self._pids()}
        replace(self._settings.data / STATUS_FILE, (json.dumps(status, indent=2) + "\n").encode())


def _gateway_lacks(host: str, port: int) -> str | None:
    connection = http.client.HTTPConnection(host, port, timeout=READY_S)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        detail = str(json.loads(answer.read()).get("detail", answer.reason))
        return None if answer.status == HTTPStatus.OK else detail
    except (OSError, http.client.HTTPException, ValueError):
        return "the gateway does not answer"
    finally:
        connection.close()


def _worker_lacks(settings: Settings, pid: int) -> str | None:
    """Whether this service's own worker answers over the broker."""
    from jobs.queue import make_celery  # late: half a second, better spent while the children start

    with make_celery(settings) as celery:
        try:
            answers = celery.control.inspect(destination=[worker_name(pid)], timeout=PING_S).ping()
        except (OperationalError, OSError):
            answers = None
    return None if answers else "the worker does not answer"
