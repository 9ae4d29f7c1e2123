"""The OpenAPI document: the framework's, with our one shape of error in place of its own, and who may ask."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from service.access.middleware import PUBLIC, needed_scope
from service.problems import MEDIA_TYPE, ProblemBody, documented

_FRAMEWORK_ERRORS = ("HTTPValidationError", "ValidationError")
_SCHEMES = {
    "key": {"type": "http", "scheme": "bearer", "description": "An API key (`ncagate keys create`), or a token."},
    "password": {"type": "http", "scheme": "basic", "description": "The key as the password; any user name."},
}
_FOR_ALL = (
    "unauthenticated",
    "forbidden",
    "not_local",
    "rate_limited",
    "identity_unavailable",
    "database_unavailable",
    "storage_unavailable",
)
"""Problems of every address that is not everybody's."""


def install(app: FastAPI) -> None:
    """Describe errors as problems, and access."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        components = document.setdefault("components", {})
        schemas = components.setdefault("schemas", {})
        schemas["Problem"] = ProblemBody.model_json_schema()
        components["securitySchemes"] = _SCHEMES
        for name in _FRAMEWORK_ERRORS:
            schemas.pop(name, None)
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                _drop_framework_errors(operation["responses"])
                if path not in PUBLIC:
                    _guard(operation, needed_scope(method.upper(), path))
        return document

    app.openapi = openapi  # type: ignore[method-assign] # FastAPI's documented way


def _drop_framework_errors(responses: dict[str, Any]) -> None:
    for status in [one for one, response in responses.items() if "HTTPValidationError" in str(response)]:
        del responses[status]


def _guard(operation: dict[str, Any], scope: str) -> None:
    operation["security"] = [{name: [scope]} for name in _SCHEMES]
    for status, response in documented(*_FOR_ALL).items():
        mine = operation["responses"].setdefault(str(status), response)
        if mine is not response:
            examples = mine["content"].setdefault(MEDIA_TYPE, response["content"][MEDIA_TYPE])["examples"]
            examples.update(response["content"][MEDIA_TYPE]["examples"])
            mine["description"] = ", ".join(f"`{code}`" for code in examples)
