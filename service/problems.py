"""Problems on the wire and in the OpenAPI document: application/problem+json (RFC 9457)."""

from __future__ import annotations

import errno
import logging
import sqlite3
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.exc import DataError, DBAPIError, SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from jobs.errors import UnsuitableWishError
from model_store.errors import ModelStoreError
from ncagate.bucket import StorageUnavailableError
from service.errors import PROBLEMS, Problem

MEDIA_TYPE = "application/problem+json"
DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
PROBLEM = "ncagate.problem"
"""Key, in an ASGI scope, of the code of the problem that was answered."""
RETRY_S = 5
"""What `Retry-After` says where something is away."""

log = logging.getLogger(__name__)


class ProblemBody(BaseModel):
    """A problem (RFC 9457). Rely on ``code``; the sentences are for people and may change."""

    model_config = ConfigDict(title="Problem", extra="allow")

    type: str = Field(description="`urn:ncagate:problem:` and the code.")
    title: str
    status: int
    detail: str
    instance: str = Field(description="Path of the request.")
    code: str = Field(description="Stable name of the problem, or of why the job failed.")


class _ProblemResponse(JSONResponse):
    """Tells whoever is around the request what the problem was."""

    def __init__(self, problem: Problem, body: ProblemBody) -> None:
        super().__init__(body.model_dump(), problem.status_code, problem.headers, MEDIA_TYPE)
        self._code = problem.code

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[PROBLEM] = self._code
        await super().__call__(scope, receive, send)


def render(problem: Problem, *, instance: str) -> Response:
    """The problem as a response."""
    body = ProblemBody(
        type=f"urn:ncagate:problem:{problem.code}",
        title=problem.title,
        status=problem.status_code,
        detail=problem.detail,
        instance=instance,
        code=problem.code,
        **problem.members,
    )
    return _ProblemResponse(problem, body)


def documented(*codes: str) -> dict[int | str, dict[str, Any]]:
    """OpenAPI ``responses`` for these codes of the table, one example each."""
    responses: dict[int | str, dict[str, Any]] = {}
    for kind in (PROBLEMS[code] for code in codes):
        example = ProblemBody(
            type=f"urn:ncagate:problem:{kind.code}",
            title=kind.title,
            status=kind.status,
            detail=kind.detail,
            instance="/...",
            code=kind.code,
        )
        content = {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": {}}
        entry = responses.setdefault(kind.status, {"description": "", "content": {MEDIA_TYPE: content}})
        entry["description"] = ", ".join(filter(None, [entry["description"], f"`{kind.code}`"]))
        entry["content"][MEDIA_TYPE]["examples"][kind.code] = {
            "summary": kind.title,
            "value": example.model_dump(),
        }
    return responses


def install(app: FastAPI) -> None:
    """Make every error leave this app as a problem."""
    _handle(app, HTTPException, _from_http)
    _handle(app, RequestValidationError, _from_validation)
    _handle(app, UnsuitableWishError, lambda error: Problem(error.code, str(error)))
    _handle(app, ModelStoreError, _from_model_store)
    _handle(app, SQLAlchemyError, from_database)
    _handle(app, StorageUnavailableError, _from_storage)
    _handle(app, OSError, _from_system)
    _handle(app, Exception, lambda error: Problem("internal_error"))


def _handle(app: FastAPI, kind: type[Exception], translate: Callable[[Any], Problem]) -> None:
    async def answer(request: Request, error: Exception) -> Response:
        return render(translate(error), instance=request.url.path)

    app.add_exception_handler(kind, answer)


def _from_http(error: HTTPException) -> Problem:
    """The problem itself, or the framework's own refusal in our words."""
    if isinstance(error, Problem):
        return error
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "malformed_request")
    detail = f"allowed: {error.headers['Allow']}" if error.headers and "Allow" in error.headers else None
    return Problem(code, detail, headers=error.headers)


def _from_validation(error: RequestValidationError) -> Problem:
    places = ("{}: {}".format(".".join(map(str, one["loc"][1:])) or "body", one["msg"]) for one in error.errors())
    return Problem("invalid_parameter", "; ".join(places))


def _from_model_store(error: ModelStoreError) -> Problem:
    if error.code not in PROBLEMS:
        raise error
    return Problem(error.code, str(error))


def from_database(error: SQLAlchemyError) -> Problem:
    """What a database that fails is to a client."""
    if isinstance(error, DataError):  # PostgreSQL has no text with a NUL in it
        return Problem("invalid_parameter", "no name and no identifier has such a value")
    cause = error.orig if isinstance(error, DBAPIError) else None
    if isinstance(cause, sqlite3.Error) and getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
        return Problem("storage_full")
    log.error("the database does not answer: %s", type(cause or error).__name__)
    return Problem("database_unavailable", headers={"Retry-After": str(RETRY_S)})


def _from_storage(error: StorageUnavailableError) -> Problem:
    return Problem(error.code, str(error), headers={"Retry-After": str(RETRY_S)})


def _from_system(error: OSError) -> Problem:
    if error.errno in DISK_FULL:
        return Problem("storage_full")
    raise error
