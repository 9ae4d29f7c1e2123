"""A client of the service, synchronous or not, with typed results (docs/client.md). It needs httpx and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ncagate.client.errors import (
    AccessError,
    DamagedDownloadError,
    JobCancelledError,
    JobFailedError,
    NcagateError,
    NoAnswerError,
    NotFinishedError,
    NotFoundError,
    NotUnderstoodError,
    ProblemError,
    RejectedError,
    ScanError,
    ServiceError,
    SetupError,
    UnavailableError,
    UntrustedServerError,
    WaitTimeoutError,
)
from ncagate.client.sync import Client, Result
from ncagate.client.types import Delivery, Job, Model, ModelVersion, Options, Part, Reason

if TYPE_CHECKING:
    from ncagate.client.asynchronous import AsyncClient, AsyncResult

__all__ = [
    "AccessError",
    "AsyncClient",
    "AsyncResult",
    "Client",
    "DamagedDownloadError",
    "Delivery",
    "Job",
    "JobCancelledError",
    "JobFailedError",
    "Model",
    "ModelVersion",
    "NcagateError",
    "NoAnswerError",
    "NotFinishedError",
    "NotFoundError",
    "NotUnderstoodError",
    "Options",
    "Part",
    "ProblemError",
    "Reason",
    "RejectedError",
    "Result",
    "ScanError",
    "ServiceError",
    "SetupError",
    "UnavailableError",
    "UntrustedServerError",
    "WaitTimeoutError",
]


def __getattr__(name: str) -> Any:
    """asyncio is loaded for those who use it."""
    if name in ("AsyncClient", "AsyncResult"):
        from ncagate.client import asynchronous

        return getattr(asynchronous, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
