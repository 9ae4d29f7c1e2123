"""The OpenAPI document and the gateway agree: Schemathesis sends what the document allows, and what it does not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode, SerializationContext
from schemathesis.checks import positive_data_acceptance
from schemathesis.openapi import from_url

from jobs.blobs import SCAN_FILE
from jobs.clients import NOBODY, Scope
from ncagate.settings import Settings
from service.access.keys import KeyRepository
from service.app import create_app

EXAMPLES = 8
"""Of every operation, and of either kind."""
RELATED = 'multipart/related; type="application/dicom"; boundary=b'
EXACTING = {"/segment", "/dicomweb/studies", "/dicomweb/studies/{study}", "/models/{name}/aliases/{alias}",
            "/models/{name}/aliases/{alias}/rollback", "/training"}  # fmt: skip
"""What is posted here must make sense beyond its schema: bytes that are DICOM, a dataset that is there,
an alias that has an earlier version."""
REJECTIONS = ["400", "404", "405", "406", "409", "413", "415", "422"]
CONFIG = schemathesis.Config.from_dict({"checks": {"negative_data_rejection": {"expected-statuses": REJECTIONS}}})
DOCUMENT = create_app(Settings(data=Path("unused"))).openapi()
OPERATIONS = [(method.upper(), path) for path, found in DOCUMENT["paths"].items() for method in found]

THERE = sorted(
    (one for one in OPERATIONS if "{job_id}" in one[1] or "{name}" in one[1]), key=lambda one: "DELETE" in one
)
"""Operations on something that there is; what takes it away comes last."""


def bodies(method: str, path: str) -> dict[str, Any]:
    """What an operation takes, by media type."""
    found: dict[str, Any] = DOCUMENT["paths"][path][method.lower()].get("requestBody", {}).get("content", {})
    return found


def can_be_wrong(method: str, path: str) -> bool:
    """Whether the document forbids anything: a body or a parameter that is not just any text."""
    operation = DOCUMENT["paths"][path][method.lower()]
    schemas = [one["schema"] for one in operation.get("parameters", ()) if one["in"] in ("path", "query")]
    narrow = any(one.get("type") != "string" or "maxLength" in one for one in schemas)
    return narrow or any("schema" in one for kind, one in bodies(method, path).items() if "related" not in kind)


@schemathesis.serializer("multipart/related")
def one_part(context: SerializationContext, value: Any) -> bytes:
    """The body of a STOW-RS request with one object."""
    content = value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")
    return b"--b\r\nContent-Type: application/dicom\r\n\r\n" + content + b"\r\n--b--\r\n"


@pytest.fixture(scope="module")
def service(serving: Any, shared_redis: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One gateway, which has to live through all of this."""
    folder = tmp_path_factory.mktemp("contract")
    with serving(folder, redis_url=shared_redis.url, body_bytes_max=200_000, files_max=3, wait_max_s=0.05) as service:
        keys = KeyRepository(service.gateway.repository.engine)
        _, text = keys.create("contract", [Scope.ADMIN], by=NOBODY)
        service.client.headers["Authorization"] = f"Bearer {text}"
        yield service


@pytest.fixture(scope="module")
def schema(service: Any) -> Any:
    """The document as it is served."""
    return from_url(f"http://127.0.0.1:{service.port}/openapi.json", config=CONFIG, headers=credentials(service))


def credentials(service: Any) -> dict[str, str]:
    return {"Authorization": service.client.headers["Authorization"]}


@pytest.fixture(scope="module")
def known(service: Any) -> dict[str, list[str]]:
    """Values of path parameters that lead somewhere: jobs that succeeded, failed and wait, in this order; a model."""
    finished, failed, waiting = (service.submit() for _ in range(3))
    service.finish(finished, SCAN_FILE)
    service.fail(failed)
    return {
        "job_id": [finished, failed, waiting],
        "name": ["tiny"],
        "version": ["1.0.0", "1.1.0"],
        "alias": ["production"],
    }


def check(service: Any, method: str, path: str, cases: st.SearchStrategy[Case[Any]]) -> None:
    """Send examples of these cases; Schemathesis judges the answers."""
    related = {"Content-Type": RELATED} if any("related" in one for one in bodies(method, path)) else {}
    excluded = [positive_data_acceptance] if path in EXACTING else []

    @settings(
        max_examples=EXAMPLES, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(case=cases)
    def holds(case: Case[Any]) -> None:
        case.call_and_validate(headers={**credentials(service), **related}, excluded_checks=excluded, timeout=10)

    holds()


class TestContract:
    @pytest.mark.parametrize(("method", "path"), OPERATIONS)
    def test_what_is_allowed_is_answered_as_documented(self, service: Any, schema: Any, method: str, path: str) -> None:
        check(service, method, path, schema[path][method].as_strategy(GenerationMode.POSITIVE))

    @pytest.mark.parametrize(("method", "path"), [one for one in OPERATIONS if can_be_wrong(*one)])
    def test_what_is_not_allowed_is_refused_as_documented(
        self, service: Any, schema: Any, method: str, path: str
    ) -> None:
        check(service, method, path, schema[path][method].as_strategy(GenerationMode.NEGATIVE))

    @pytest.mark.parametrize(("method", "path"), THERE)
    def test_what_is_there_is_answered_as_documented(
        self, service: Any, schema: Any, known: dict[str, list[str]], method: str, path: str
    ) -> None:
        if path.endswith("/events"):  # those of a job that waits have no end
            known = {**known, "job_id": known["job_id"][:2]}

        def there(case: Case[Any], values: dict[str, str]) -> Case[Any]:
            case.path_parameters = {name: values[name] for name in case.path_parameters or {}}
            return case

        values = st.fixed_dictionaries({name: st.sampled_from(some) for name, some in known.items()})
        check(service, method, path, st.builds(there, schema[path][method].as_strategy(), values))
