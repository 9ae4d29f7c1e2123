"""/livez, /readyz, /metrics: what the machines around the service ask."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from jobs.errors import JobsError
from model_store.errors import ModelStoreError
from ncagate.bucket import StorageUnavailableError
from service.errors import Problem
from service.gateway import Gateway, TheGateway
from service.problems import RETRY_S, documented
from service.schemas import Health

CHECK_S = 3.0
"""A check that takes longer has failed."""

router = APIRouter(tags=["operations"])


@router.get("/livez", summary="Is the gateway alive?", responses=documented("internal_error"))
async def livez() -> Health:
    """The process answers."""
    return Health()


@router.get("/readyz", summary="Can the service work?", responses=documented("not_ready", "internal_error"))
async def readyz(gateway: TheGateway) -> Health:
    """Database, broker, data folder, blob store and models, each asked within 3 seconds; a 503 lists what fails."""
    checks = _checks(gateway)
    answers = await asyncio.gather(*(_try(check) for check in checks.values()))
    failures = {name: why for name, why in zip(checks, answers, strict=True) if why}
    if failures:
        detail = "; ".join(f"{name}: {why}" for name, why in failures.items())
        raise Problem("not_ready", detail, headers={"Retry-After": str(RETRY_S)}, members={"failures": failures})
    return Health()


@router.get(
    "/metrics",
    summary="Metrics",
    response_model=None,
    responses={
        200: {
            "description": "Prometheus text format.",
            "content": {"text/plain": {"schema": {"type": "string"}}},
        },
        **documented("internal_error"),
    },
)
def metrics(request: Request, gateway: TheGateway) -> Response:
    """For Prometheus to scrape."""
    content, media_type = gateway.metrics.page(request.headers.get("accept", ""))
    return Response(content, headers={"Content-Type": media_type})


async def _try(check: Callable[[], str | None]) -> str | None:
    """What is wrong, in words that give nothing away, or None."""
    try:
        async with asyncio.timeout(CHECK_S):
            return await run_in_threadpool(check)
    except TimeoutError:
        return "no answer in time"
    except (JobsError, ModelStoreError, StorageUnavailableError) as error:
        return str(error)
    except Exception as error:
        return type(error).__name__


def _checks(gateway: Gateway) -> Mapping[str, Callable[[], str | None]]:
    return {
        "database": gateway.repository.ping,
        "broker": gateway.broker.ping,
        "data folder": lambda: _writable(gateway),
        "storage": gateway.blobs.ping,
        "models": lambda: _usable_model(gateway),
    }


def _writable(gateway: Gateway) -> None:
    """Raises OSError where it is not."""
    with gateway.blobs.staging() as folder:
        (folder / "probe").write_bytes(b"writable")


def _usable_model(gateway: Gateway) -> str | None:
    registry = gateway.registry
    for name in registry.names():
        for version in registry.versions(name):
            try:
                registry.check(registry.manifest(name, version))
            except ModelStoreError:
                continue
            return None
    return "no model has a usable version"
