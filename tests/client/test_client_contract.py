"""What the service offers and what the client knows of it, held against each other."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

import httpx
import pytest

import ncagate.client
from jobs.state import TERMINAL, JobState
from jobs.wish import Wish
from ncagate.client import AsyncClient, AsyncResult, Client, Job, Options, ProblemError, Result
from ncagate.client.errors import JobFailedError, NotUnderstoodError, passes, problem_of
from ncagate.client.files import ENDINGS
from ncagate.client.outcome import Outcome
from ncagate.client.types import ENDED, State, job_from, reading
from service.artefacts import FILES
from service.errors import PROBLEMS
from service.schemas import ARTEFACTS, JobView
from tests.service.conftest import Service

OFFERED: Mapping[str, Callable[[Client, Service, Path], object]] = {
    "POST /segment": lambda client, service, scan: client.segment(scan, model="tiny", wait=False),
    "GET /jobs": lambda client, service, scan: list(client.jobs()),
    "GET /jobs/{job_id}": lambda client, service, scan: client.job(service.submit()),
    "DELETE /jobs/{job_id}": lambda client, service, scan: client.cancel(service.submit()),
    "GET /jobs/{job_id}/events": lambda client, service, scan: finished(client, service),
    "GET /jobs/{job_id}/mask": lambda client, service, scan: finished(client, service).save(scan.parent),
    "GET /jobs/{job_id}/uncertainty": lambda client, service, scan: finished(client, service).save_all(scan.parent),
    "GET /jobs/{job_id}/preview": lambda client, service, scan: finished(client, service).preview(),
    "GET /jobs/{job_id}/report": lambda client, service, scan: finished(client, service).report(),
    "GET /models": lambda client, service, scan: client.models(),
    "GET /models/{name}": lambda client, service, scan: client.model("tiny"),
    "GET /models/{name}/health": lambda client, service, scan: client.health("tiny"),
    "GET /models/{name}/versions/{version}": lambda client, service, scan: client.manifest("tiny", "1.0.0"),
}
"""A call of the client for every operation."""
ADMINISTRATION = "moves what other clients get: `ncagate models`, where the store is"
TRAINING = "an administrator's, on the deployment's own datasets; a key for it is not what scripts should hold"
DICOMWEB = "for archives and viewers, which speak DICOMweb; in Python dicomweb-client does"
MONITORING = "for orchestrators and Prometheus"
REVIEW = "for people who look at scans, in the review console; decisions come out by `ncagate export-reviews`"
NOT_OFFERED: Mapping[str, str] = {
    "GET /jobs/{job_id}/scan": REVIEW,
    "GET /jobs/{job_id}/reviews": REVIEW,
    "POST /jobs/{job_id}/reviews": REVIEW,
    "GET /models/{name}/versions/{version}/calibration": REVIEW,
    "PUT /models/{name}/aliases/{alias}": ADMINISTRATION,
    "POST /models/{name}/aliases/{alias}/rollback": ADMINISTRATION,
    "POST /training": TRAINING,
    "GET /training": TRAINING,
    "GET /training/{training_id}": TRAINING,
    "DELETE /training/{training_id}": TRAINING,
    "GET /series": "what archives have sent is looked after where the archives are",
    "GET /livez": MONITORING,
    "GET /readyz": MONITORING,
    "GET /metrics": MONITORING,
}
"""Why the client has no call for the others; all below /dicomweb have one reason."""


def finished(client: Client, service: Service) -> Result:
    job = service.submit()
    service.finish(job)
    return client.result(job)


@pytest.fixture
def operations(service: Service) -> set[str]:
    paths = service.client.get("/openapi.json").json()["paths"]
    return {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}


class TestOperations:
    def test_every_one_has_a_call_or_a_reason(self, operations: set[str]) -> None:
        reasons = set(NOT_OFFERED) | {one for one in operations if " /dicomweb/" in one and DICOMWEB}
        assert operations - reasons == set(OFFERED), "give it a call of the client (OFFERED), or a reason (NOT_OFFERED)"
        assert set(NOT_OFFERED) <= operations, "no such operation any more"

    @pytest.mark.parametrize("operation", OFFERED)
    def test_the_call_asks_for_it(self, operation: str, service: Service, tmp_path: Path) -> None:
        scan, asked = tmp_path / "scan.nii", []
        scan.write_bytes(b"x")
        with Client(f"http://127.0.0.1:{service.port}") as client:
            client._http.event_hooks = {"request": [lambda one: asked.append(f"{one.method} {one.url.path}")]}
            OFFERED[operation](client, service, scan)
        pattern = re.compile(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(operation)))
        assert [one for one in asked if pattern.fullmatch(one)], asked


class TestFields:
    def test_a_job_has_those_of_the_service(self) -> None:
        assert {one.name for one in fields(Job)} == set(JobView.model_fields)

    def test_the_example_of_the_document_is_read_and_what_is_new_in_it_passed_over(self) -> None:
        (example,) = JobView.model_json_schema()["examples"]
        job = job_from({**example, "later": 1})
        assert (job.state, job.progress, job.created.year, job.deliveries) == ("running", 0.4, 2026, None)

    def test_whatever_a_job_says_is_read(self) -> None:
        (example,) = JobView.model_json_schema()["examples"]
        delivery = {"destination": "pacs", "state": "failed", "attempts": 2, "finished": None, "error": "away"}
        job = job_from({**example, "deliveries": [delivery], "error": {"code": "a", "detail": "b"}, "warnings": ["w"]})
        assert job.deliveries is not None
        assert (job.deliveries[0].destination, job.warnings) == ("pacs", ("w",))
        with pytest.raises(JobFailedError, match="b"):
            job_from({**example, "state": "failed", "error": {"code": "a", "detail": "b"}}).check()

    @pytest.mark.parametrize(
        "change", [{"id": "../../x"}, {"id": ""}, {"id": 7}, {"state": "lost"}, {"created": "now"}]
    )
    def test_what_is_no_job_is_not_read(self, change: dict[str, Any]) -> None:
        (example,) = JobView.model_json_schema()["examples"]
        with pytest.raises(NotUnderstoodError):
            reading(job_from, {**example, **change})

    def test_states_options_and_files_are_those_of_the_service(self) -> None:
        assert set(get_args(State)) == set(JobState)
        assert ENDED == TERMINAL
        assert Options.__optional_keys__ == set(Wish.model_fields) - {"model"}
        hints = get_type_hints(Options)
        assert set(get_args(hints["rule"])) == {"conformal", "nqm"}
        assert {part.value for part in ENDINGS} == set(ARTEFACTS) | {"segmentation"}
        assert set(ENDINGS.values()) == {name for name, _ in FILES.values()}


class TestProblems:
    @pytest.mark.parametrize("code", sorted(PROBLEMS))
    def test_every_one_has_a_kind(self, code: str) -> None:
        kind = PROBLEMS[code]
        body = {"code": code, "status": kind.status, "detail": "because", "job": None}
        error = problem_of(httpx.Response(kind.status, json=body))
        assert type(error) is not ProblemError
        assert (error.code, error.status, str(error)) == (code, kind.status, "because")

    def test_those_that_pass_are_tried_again(self) -> None:
        passing = {
            code
            for code, kind in PROBLEMS.items()
            if passes(problem_of(httpx.Response(kind.status, json={"code": code})))
        }
        assert passing == {
            "upload_incomplete", "rate_limited", "too_many_uploads", "too_many_jobs", "identity_unavailable",
            "database_unavailable", "storage_unavailable", "queue_full", "not_ready",
        }  # fmt: skip

    @pytest.mark.parametrize("content", [b"", b"<html>", b"[]", b'"text"', b"\xff"])
    def test_of_a_proxy_are_known_by_their_status(self, content: bytes) -> None:
        error = problem_of(httpx.Response(502, content=content))
        assert (error.code, passes(error)) == ("http_502", True)


class TestBothClients:
    """One is the other but for the waiting."""

    @pytest.mark.parametrize(("one", "other"), [(Client, AsyncClient), (Result, AsyncResult)])
    def test_have_the_same_calls(self, one: type, other: type) -> None:
        mine, theirs = (
            {
                name: (list(inspect.signature(value).parameters.values()), inspect.getdoc(value))
                for name, value in vars(kind).items()
                if inspect.isfunction(value) and not name.startswith("_")
            }
            for kind in (one, other)
        )
        assert mine == theirs

    def test_results_have_the_same_figures(self) -> None:
        assert issubclass(Result, Outcome)
        assert issubclass(AsyncResult, Outcome)


class TestImport:
    def test_nothing_but_httpx_is_needed(self) -> None:
        code = (
            "import sys, ncagate.client as c; c.AsyncClient; "
            "print(sorted({'torch', 'numpy', 'fastapi', 'starlette', 'sqlalchemy', 'celery', 'pydantic', 'nibabel', "
            "'typer', 'jobs', 'service', 'nca', 'imaging'} & set(sys.modules)))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout == "[]\n"

    def test_every_name_it_promises_is_there(self) -> None:
        assert [name for name in ncagate.client.__all__ if not hasattr(ncagate.client, name)] == []
        with pytest.raises(AttributeError):
            _ = ncagate.client.Nothing
