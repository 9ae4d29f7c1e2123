"""The gateway as an ASGI app."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib.metadata import version

from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool

from jobs.database import upgrade
from ncagate.settings import Settings
from service import (
    archive,
    console,
    health,
    jobs,
    models,
    openapi,
    problems,
    reviews,
    segment,
    series,
    stow,
    training,
)
from service.access.middleware import Access
from service.admission import Admission
from service.gateway import Gateway
from service.limits import BodyLimit
from service.telemetry import Telemetry

SWEEP_S = 3600.0
"""How often files that nobody owns are looked for."""

log = logging.getLogger(__name__)


def create_app(settings: Settings | None = None) -> FastAPI:
    """The app; it opens its database and starts its reconciler when it is served, and stops both cleanly."""
    settings = settings or Settings()
    gateway = Gateway.open(settings)
    app = FastAPI(
        title="ncagate",
        version=version("ncagate"),
        summary="Segments 3-D medical scans and says of every mask whether it can be trusted.",
        lifespan=_lifespan,
        redirect_slashes=False,  # a redirect repeats the request's Host, which anybody may choose
    )
    app.state.gateway = gateway
    app.add_middleware(Admission, settings=settings, repository=gateway.repository)
    app.add_middleware(Access, door=gateway.door)
    app.add_middleware(BodyLimit, bytes_max=settings.body_bytes_max, rate_min=settings.body_rate_min)
    app.add_middleware(Telemetry, metrics=gateway.metrics)
    for room in (jobs, reviews, segment, stow, archive, series, models, training, health, console):
        app.include_router(room.router)
    problems.install(app)
    openapi.install(app)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    gateway: Gateway = app.state.gateway
    await run_in_threadpool(_prepare, gateway)
    with _reconciling(gateway):
        yield
    await run_in_threadpool(gateway.close)


def _prepare(gateway: Gateway) -> None:
    gateway.settings.data.mkdir(parents=True, exist_ok=True)
    upgrade(gateway.settings.database)
    gateway.sweep()
    if gateway.door.lacks_keys():
        log.warning("nobody has a key yet, so nobody can come in: make one with `ncagate keys create NAME`")


@contextmanager
def _reconciling(gateway: Gateway) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=_reconcile_until, args=(stop, gateway), name="reconciler", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _reconcile_until(stop: threading.Event, gateway: Gateway) -> None:
    swept = time.monotonic()
    while not stop.wait(gateway.settings.reconcile_s):
        try:
            gateway.reconcile()
            if time.monotonic() - swept > SWEEP_S:
                swept = time.monotonic()
                gateway.sweep()
        except Exception:
            log.exception("a round of the reconciler failed; the next one tries again")
