"""Keys, retention and the audit log at the command line, beside a gateway's database."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from jobs.clients import Client, Scope
from jobs.database import open_database, upgrade
from jobs.models import JobRequest
from jobs.repository import JobRepository
from jobs.shadow import Finding, Pair, Shadows
from model_store.manifest import Manifest
from model_store.reference import Reference
from service.access.keys import KeyRepository

Cli = Callable[..., subprocess.CompletedProcess[str]]
REQUEST = JobRequest(model="tiny", version="1.0.0", min_dice=0.8, members=1)


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """Runs `ncagate` on a data folder of its own."""

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "ncagate.cli", *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=120,
            cwd=tmp_path,
            env=os.environ | {"NCAGATE_DATA": str(tmp_path), "COLUMNS": "160"},
        )

    return run


@pytest.fixture
def jobs(tmp_path: Path) -> JobRepository:
    """The database of the data folder."""
    engine = open_database(f"sqlite:///{tmp_path / 'ncagate.db'}")
    upgrade(engine)
    return JobRepository(engine)


def ended(jobs: JobRepository, client: str) -> str:
    job_id = uuid4().hex
    jobs.seen_by(Client(client, frozenset(Scope), "key")).create(job_id, REQUEST)
    jobs.request_cancel(job_id)
    return job_id


def done(jobs: JobRepository, result: dict[str, Any]) -> str:
    job_id = jobs.create(uuid4().hex, REQUEST).id
    claimed = jobs.claim(job_id, 60.0)
    assert claimed is not None
    assert jobs.succeed(job_id, claimed.attempt, result)
    return job_id


class TestKeys:
    def test_are_made_listed_and_revoked(self, cli: Cli, jobs: JobRepository) -> None:
        made = cli("keys", "create", "ward", "--scope", "submit", "--days", "30")
        text, keys = made.stdout.strip(), KeyRepository(jobs.engine)
        assert made.returncode == 0, made.stderr
        client = keys.client(text)
        assert client is not None
        assert (client.name, client.scopes) == ("ward", frozenset({Scope.SUBMIT}))
        (key,) = keys.list()
        listed = cli("keys", "list").stdout
        assert key.id in listed
        assert text not in listed + made.stderr
        assert cli("keys", "revoke", key.id).stdout == f"key {key.id} of ward is revoked\n"
        assert keys.client(text) is None
        told = [json.loads(line) for line in cli("audit").stdout.splitlines()]
        assert [(one["action"], one["subject"]) for one in told] == [
            ("key_created", f"ward {key.id}"),
            ("key_revoked", f"ward {key.id}"),
        ]
        assert all(one["credential"].startswith("command line, ") for one in told)
        jobs.close()

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["keys", "create", "ward", "--scope", "everything"], "everything"),
            (["keys", "create", "no name"], "[invalid_client_name]"),
            (["keys", "create", "oidc:jane"], "[invalid_client_name]"),
            (["keys", "create", "ward", "--certificate", "absent.pem"], "[invalid_certificate]"),
            (["keys", "revoke", "absent"], "[key_not_found]"),
        ],
    )
    def test_what_cannot_be_done_is_said(self, cli: Cli, arguments: list[str], said: str) -> None:
        done = cli(*arguments)
        assert done.returncode == 2
        assert said in done.stderr
        assert "Traceback" not in done.stderr


class TestRetention:
    def test_days_of_a_client_and_purging(self, cli: Cli, jobs: JobRepository) -> None:
        kept, gone = ended(jobs, "long"), ended(jobs, "ward")
        assert cli("clients", "keep", "long", "30").stdout == "long: 30 days\n"
        assert cli("clients", "list").stdout == "long: 30 days\n"
        assert cli("purge").stdout == "0 jobs erased\n"
        assert cli("purge", "--days", "0", "--dry-run").stdout == "1 jobs would be erased\n"
        assert cli("purge", "--days", "0").stdout == "1 jobs erased\n"
        assert [job.id for job in jobs.list()] == [kept]
        *_, line = cli("audit", "--subject", gone, "--client", "local").stdout.splitlines()
        assert json.loads(line) | {"number": 0, "at": ""} == {
            "number": 0, "at": "", "client": "local", "credential": "retention", "action": "purged", "subject": gone,
        }  # fmt: skip
        assert cli("clients", "keep", "long").stdout == "long: as the deployment\n"
        jobs.close()


class TestDrift:
    def test_is_told_signal_by_signal_and_by_the_exit_code(
        self, cli: Cli, jobs: JobRepository, tmp_path: Path, publish_tiny: Callable[..., Manifest]
    ) -> None:
        assert cli("drift").stdout == "no version has finished a job\n"
        scans = range(80)
        reference = Reference(tuple(map(str, scans)), {"nqm": tuple(number / 1000 for number in scans)})
        publish_tiny(tmp_path / "models", reference=reference)
        for code, offset in [(1, 0.5), (0, 0.0)]:
            for number in range(50):
                done(jobs, {"members": 10, "nqm": offset + number * 0.0016, "segments": []})
            said = cli("drift", "tiny")
            assert (said.returncode, "drifted" in said.stdout) == (code, bool(code)), said.stderr
            assert "tiny 1.0.0: last 50 jobs, 80 scans of reference" in said.stdout
        assert cli("drift", "brain").returncode == 2
        jobs.close()


class TestCompare:
    def test_shows_how_a_candidate_did_and_so_does_its_promotion(
        self, cli: Cli, jobs: JobRepository, tmp_path: Path, publish_tiny: Callable[..., Manifest]
    ) -> None:
        for version in ("1.0.0", "2.0.0"):
            publish_tiny(tmp_path / "models", version=version)
        assert cli("models", "promote", "tiny", "1.0.0").stdout == "tiny: production is now 1.0.0\n"
        assert cli("models", "promote", "tiny", "2.0.0", "--alias", "candidate").returncode == 0
        assert cli("models", "compare", "tiny").stdout == "tiny: no candidate was tried yet\n"
        pair, shadows = Pair("tiny", "1.0.0", "2.0.0"), Shadows(jobs.engine)
        job_id = done(jobs, {"seconds": 1.0})
        assert shadows.begin(pair, 1.0) is not None
        finding = Finding(0.987, 0.01, -0.02, verdict_changed=True, seconds=1.0, candidate_seconds=1.5)
        shadows.compared(job_id, pair, finding)
        for arguments in (["compare", "tiny"], ["promote", "tiny", "2.0.0"], ["rollback", "tiny"]):
            said = cli("models", *arguments)
            assert said.returncode == 0, said.stderr
            assert all(one in said.stdout for one in ("0.987", "+0.0100", "-0.0200", "1 changed", "x 1.50"))
        told = [json.loads(line) for line in cli("audit").stdout.splitlines()]
        assert [one["subject"] for one in told if one["action"] == "promoted"] == [
            "tiny production 1.0.0", "tiny candidate 2.0.0", "tiny production 2.0.0", "tiny production 1.0.0",
        ]  # fmt: skip
        jobs.close()
