from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ncagate.settings import Settings
from service.app import create_app
from service.errors import PROBLEMS
from service.problems import MEDIA_TYPE, ProblemBody
from service.schemas import JobView


@pytest.fixture
def document(tmp_path: Path) -> dict[str, Any]:
    return create_app(Settings(data=tmp_path)).openapi()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method} {path}", operation


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        yield from ([node["$ref"]] if isinstance(node.get("$ref"), str) else [])
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


class TestDocument:
    def test_every_reference_leads_somewhere(self, document: dict[str, Any]) -> None:
        known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
        assert set(references(document)) <= known
        assert "#/components/schemas/Problem" in known

    def test_every_error_is_a_problem_with_an_example(self, document: dict[str, Any]) -> None:
        for name, operation in operations(document):
            for status, response in operation["responses"].items():
                if int(status) >= 400 and "application/dicom+json" not in response["content"]:  # STOW-RS has its own
                    examples = response["content"][MEDIA_TYPE]["examples"]
                    assert examples, f"{name} {status}"
                    assert all(ProblemBody.model_validate(one["value"]) for one in examples.values())

    def test_every_code_of_the_table_is_documented(self, document: dict[str, Any]) -> None:
        everywhere = {"not_found", "method_not_allowed"}  # of addresses, so of no operation
        documented = {
            code
            for _, operation in operations(document)
            for response in operation["responses"].values()
            for code in response.get("content", {}).get(MEDIA_TYPE, {}).get("examples", {})
        }
        assert documented | everywhere == set(PROBLEMS)

    def test_every_address_but_two_asks_for_a_key(self, document: dict[str, Any]) -> None:
        open_ones = {name for name, operation in operations(document) if "security" not in operation}
        assert open_ones == {"get /livez", "get /readyz"}
        for name, operation in operations(document):
            if name not in open_ones:
                assert {"401", "403", "429"} <= set(operation["responses"]), name

    def test_the_upload_and_the_preference_are_described(self, document: dict[str, Any]) -> None:
        operation = document["paths"]["/segment"]["post"]
        form = operation["requestBody"]["content"]["multipart/form-data"]["schema"]
        assert set(form["properties"]) == {
            "scan", "model", "version", "min_dice", "alpha", "rule", "members", "seed", "series_uid", "roi",
            "priority", "webhook",
        }  # fmt: skip
        assert form["required"] == ["scan", "model"]
        assert [one["name"] for one in operation["parameters"]] == ["Prefer", "Idempotency-Key"]

    def test_the_example_of_a_job_is_a_job(self, document: dict[str, Any]) -> None:
        (example,) = document["components"]["schemas"]["JobView"]["examples"]
        assert JobView.model_validate(example, extra="forbid").state == "running"

    def test_every_operation_has_a_summary_and_a_description(self, document: dict[str, Any]) -> None:
        assert all(one.get("summary") and one.get("description") for _, one in operations(document))
