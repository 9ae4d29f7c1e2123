"""The OpenAPI document: the framework's, with our one shape of error in place of its own."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from service.problems import ProblemBody

_FRAMEWORK_ERRORS = ("HTTPValidationError", "ValidationError")


def install(app: FastAPI) -> None:
    """Describe errors as problems."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        schemas["Problem"] = ProblemBody.model_json_schema()
        for name in _FRAMEWORK_ERRORS:
            schemas.pop(name, None)
        for path in document["paths"].values():
            for operation in path.values():
                _drop_framework_errors(operation["responses"])
        return document

    app.openapi = openapi  # type: ignore[method-assign] # FastAPI's documented way


def _drop_framework_errors(responses: dict[str, Any]) -> None:
    for status in [one for one, response in responses.items() if "HTTPValidationError" in str(response)]:
        del responses[status]
