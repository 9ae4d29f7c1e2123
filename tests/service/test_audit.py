"""The audit log of the gateway: who did what to which job; and the jobs whose time is over."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.audit import Action
from jobs.clients import NOBODY, Scope
from jobs.retention import Retention
from service.access.keys import KeyRepository

CANARY = "Canary^Yolanda"


def told(service: Any, **wanted: str) -> list[tuple[str, str, str]]:
    """Client, action and subject of each entry that is about no key."""
    entries = service.gateway.audit.list(**wanted)
    return [(one.client, one.action, one.subject) for one in entries if not one.action.startswith("key_")]


@pytest.fixture
def reader(site: Any) -> tuple[Any, str]:
    """A site, and a finished job of its ward."""
    job = site.submit("ward")
    site.service.finish(job, "segmentation.dcm", "report.dcm")
    return site, job


class TestReads:
    @pytest.mark.parametrize(
        ("path", "accept"),
        [
            ("mask", "*/*"), ("mask", "application/dicom"), ("uncertainty", "*/*"), ("preview", "*/*"),
            ("report", "application/json"), ("report", "application/dicom"),
        ],
    )  # fmt: skip
    def test_every_file_is_told(self, reader: tuple[Any, str], path: str, accept: str) -> None:
        site, job = reader
        assert site.ask("reader", "GET", f"/jobs/{job}/{path}", headers={"Accept": accept}).status_code == 200
        assert told(site.service)[-1] == ("ward", Action.READ, job)
        assert site.service.gateway.audit.list()[-1].credential.startswith("key ")

    def test_what_an_administrator_reads_is_told_as_its_own_doing(self, reader: tuple[Any, str]) -> None:
        site, job = reader
        assert site.ask("it", "GET", f"/jobs/{job}/mask").status_code == 200
        assert told(site.service)[-1] == ("it", Action.READ, job)

    def test_what_nobody_got_is_not_told(self, reader: tuple[Any, str]) -> None:
        site, job = reader
        before = told(site.service)
        assert site.ask("other", "GET", f"/jobs/{job}/mask").status_code == 404
        assert site.ask("ward", "GET", f"/jobs/{site.submit('ward')}/mask").status_code == 409
        assert [one for one in told(site.service) if one[1] == Action.READ] == [
            one for one in before if one[1] == Action.READ
        ]

    def test_a_result_that_was_waited_for_is_told(self, site: Any) -> None:
        job = site.submit("ward", headers={"Idempotency-Key": "one"})
        site.service.finish(job)
        options = {"files": {"scan": b"scan"}, "data": {"model": "tiny"}}
        headers = {"Idempotency-Key": "one", "Accept": "application/gzip"}
        assert site.ask("ward", "POST", "/segment", headers=headers, **options).status_code == 200
        assert told(site.service, subject=job)[-1][1] == Action.READ

    def test_a_search_is_told(self, site: Any) -> None:
        assert site.ask("ward", "GET", "/dicomweb/studies").status_code == 200
        assert told(site.service)[-1] == ("ward", Action.READ, "search")


class TestChanges:
    def test_a_jobs_life_is_told(self, site: Any) -> None:
        job = site.submit("ward")
        for _ in range(2):
            site.ask("sender", "DELETE", f"/jobs/{job}")
        assert told(site.service) == [("ward", one, job) for one in (Action.SUBMITTED, Action.CANCELLED, Action.ERASED)]

    def test_promoting_is_told(self, site: Any) -> None:
        site.ask("it", "PUT", "/models/tiny/aliases/best", json={"version": "1.1.0"})
        site.ask("it", "POST", "/models/tiny/aliases/production/rollback")
        promoted = [one for one in told(site.service) if one[1] == Action.PROMOTED]
        assert promoted
        assert all(client == "it" and "tiny" in subject for client, _, subject in promoted)

    def test_keys_are_told_without_their_text(self, site: Any) -> None:
        keys = KeyRepository(site.service.gateway.repository.engine)
        key, text = keys.create("gone", [Scope.READ], by=NOBODY)
        keys.revoke(key.id, by=NOBODY)
        entries = site.service.gateway.audit.list()
        assert [(one.action, one.subject) for one in entries[-2:]] == [
            (Action.KEY_CREATED, f"gone {key.id}"),
            (Action.KEY_REVOKED, f"gone {key.id}"),
        ]
        assert not any(text in repr(vars(one)) for one in entries)

    def test_no_file_and_no_patient_is_named(self, site: Any) -> None:
        files = {"scan": (f"{CANARY}.nii.gz", CANARY.encode())}
        for key in ("one", None):
            headers = {} if key is None else {"Idempotency-Key": key}
            site.ask("ward", "POST", "/segment", files=files, data={"model": "tiny"}, headers=headers)
        site.ask("ward", "GET", f"/dicomweb/studies/{CANARY}")
        site.ask("ward", "GET", f"/dicomweb/studies?PatientName={CANARY}")
        assert CANARY not in repr([vars(one) for one in site.service.gateway.audit.list()])


class TestRetention:
    @pytest.fixture
    def old(self, serve: Callable[..., Any], broker: Any) -> Callable[..., tuple[Any, str]]:
        """A gateway with these settings, and a job of its that has just ended."""

        def old(**settings: Any) -> tuple[Any, str]:
            service = serve(redis_url=broker.url, **settings)
            job = service.submit()
            service.finish(job)
            return service, job

        return old

    def traces(self, service: Any, job: str) -> list[Path]:
        return [one for one in service.gateway.settings.data.rglob("*") if job in str(one)]

    def test_the_sweep_erases_what_was_kept_for_long_enough(self, old: Any) -> None:
        service, job = old(keep_days=0)
        running = service.submit()
        assert self.traces(service, job)
        service.gateway.sweep()
        assert service.client.get(f"/jobs/{job}").status_code == 404
        assert service.client.get(f"/jobs/{running}").status_code == 200
        assert self.traces(service, job) == []
        entry = service.gateway.audit.list(subject=job)[-1]
        assert (entry.action, entry.credential) == (Action.PURGED, "retention")

    @pytest.mark.parametrize("settings", [{}, {"keep_days": 1}])
    def test_and_nothing_else(self, old: Any, settings: Any) -> None:
        service, job = old(**settings)
        service.gateway.sweep()
        assert service.client.get(f"/jobs/{job}/mask").status_code == 200

    def test_a_client_has_days_of_its_own(self, old: Any) -> None:
        service, job = old(keep_days=0)
        Retention(service.gateway.repository.engine).keep("local", 30)
        service.gateway.sweep()
        assert service.client.get(f"/jobs/{job}").status_code == 200
        Retention(service.gateway.repository.engine).keep("local", 0)
        service.gateway.sweep()
        assert service.client.get(f"/jobs/{job}").status_code == 404
