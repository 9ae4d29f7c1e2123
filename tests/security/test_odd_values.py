"""Values that a database, a file system or a parser may choke on: each is refused or finds nothing, none breaks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

ODD = (
    "\0", "a\0b", "\x01", "\u202e", "\ud7ff", "\U0010ffff", "'", "'; DROP TABLE jobs; --", "%", "_", "\\", "{}", "${x}",
    "{{7*7}}", "../..", "a" * 300, "a" * 5000, "1" * 400, "nan", "inf", "-1", "1e999", "None", " ", "\r\nX: y",
)  # fmt: skip
PATHS = (
    "/jobs/{}", "/jobs/{}/mask", "/jobs/{}/report", "/jobs/{}/events", "/jobs?before={}", "/jobs?before=1-{}",
    "/jobs?before={}-a", "/jobs?limit={}", "/jobs?state={}", "/models/{}", "/models/tiny/versions/{}",
    "/series?limit={}",
    "/dicomweb/studies?StudyInstanceUID={}", "/dicomweb/series?Modality={}", "/dicomweb/instances?offset={}",
    "/dicomweb/instances?limit={}",
    "/dicomweb/studies/{}", "/dicomweb/studies/{}/metadata",
    "/dicomweb/studies/1.2/series/{}/instances/{}", "/dicomweb/studies/{}/series", "/dicomweb/studies?{}=1",
)  # fmt: skip


@pytest.fixture
def service(serve: Callable[..., Any], broker: Any, database_url: str) -> Any:
    return serve(redis_url=broker.url, database_url=database_url, client_rate_max=10_000.0)


class TestOddValues:
    def test_in_an_address_find_nothing(self, service: Any) -> None:
        found = {}
        for path in PATHS:
            for value in ODD:
                answer = service.client.get(path.replace("{}", quote(value, safe="")))
                if answer.status_code not in (200, 404, 422):
                    found[path, value[:20]] = (answer.status_code, answer.json()["code"])
        assert found == {}

    @pytest.mark.parametrize("offset", [2**31, 2**63 - 1, 2**63, 10**30, 10**300])
    def test_an_offset_beyond_all_rows_finds_nothing(self, service: Any, offset: int) -> None:
        for path in ("studies", "series", "instances"):
            answer = service.client.get(f"/dicomweb/{path}?offset={offset}")
            assert answer.status_code in (200, 422), answer.text

    def test_in_what_changes_something_change_nothing(self, service: Any) -> None:
        found = {}
        for value in ODD:
            name = quote(value, safe="")
            for method, path, body in (
                ("DELETE", f"/jobs/{name}", None),
                ("PUT", f"/models/tiny/aliases/{name}", {"version": "1.0.0"}),
                ("PUT", f"/models/{name}/aliases/best", {"version": "1.0.0"}),
                ("PUT", "/models/tiny/aliases/best", {"version": value}),
                ("POST", f"/models/tiny/aliases/{name}/rollback", None),
            ):
                answer = service.client.request(method, path, json=body)
                named = method == "PUT" and answer.status_code == 200 and value.isalnum()  # an alias of that name
                if answer.status_code not in (404, 405, 422) and not named:
                    found[method, path[:50]] = (answer.status_code, answer.text[:80])
        assert found == {}

    def test_in_a_form_are_refused(self, service: Any) -> None:
        found = {}
        for value in ODD:
            for field in ("model", "version", "rule", "roi", "series_uid", "priority", "seed", "members", "min_dice"):
                form = {"model": "tiny", field: value}
                answer = service.client.post("/segment", files={"scan": b"scan"}, data=form)
                if answer.status_code not in (202, 404, 422):
                    found[field, value[:20]] = (answer.status_code, answer.text[:80])
        assert found == {}
