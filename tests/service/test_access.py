"""Who comes in, to what, and what of the others they see."""

from __future__ import annotations

import base64
import socket
import time
from typing import Any

import pytest

from jobs.clients import NOBODY, Scope
from service.access.door import CACHED_S
from service.access.errors import InvalidKeyError
from service.access.keys import KeyRepository

SUBMIT, READ, ADMIN = Scope.SUBMIT, Scope.READ, Scope.ADMIN
SCAN = {"scan": b"scan"}
TINY = {"model": "tiny"}
FURTHER = ("/openapi.json", "/docs", "/redoc", "/nothing/here", "/jobs/", "//segment")


class TestKeys:
    def test_no_address_answers_without_one(self, site: Any) -> None:
        operations = [*site.operations(site.submit("ward")), *(("GET", path) for path in FURTHER)]
        assert len(operations) > 25
        answers = {(method, path): site.ask(None, method, path) for method, path in operations}
        assert {name: one.status_code for name, one in answers.items() if one.status_code != 401} == {}
        assert all("Bearer" in one.headers["WWW-Authenticate"] for one in answers.values())

    @pytest.mark.parametrize("kind", ["wrong", "revoked", "expired", "cut", "empty", "of another scheme"])
    def test_no_address_answers_to_one_that_is_not_in_force(self, site: Any, kind: str) -> None:
        job_id, text = site.submit("ward"), site.key("gone", ADMIN, days=0.0 if kind == "expired" else None)
        if kind == "revoked":
            site.keys.revoke(site.keys.list()[-1].id, by=NOBODY)
        shown = {"wrong": "ncg_" + "A" * 43, "cut": text[:-1], "empty": ""}.get(kind, text)
        scheme = "Digest" if kind == "of another scheme" else "Bearer"
        for method, path in site.operations(job_id):
            answer = site.ask(None, method, path, headers={"Authorization": f"{scheme} {shown}".strip()})
            assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated"), path

    def test_a_key_that_is_revoked_while_it_is_used_ends_within_a_second(self, site: Any) -> None:
        text = site.key("gone")
        assert site.ask(text, "GET", "/jobs").status_code == 200
        site.keys.revoke(site.keys.list()[-1].id, by=NOBODY)
        time.sleep(CACHED_S + 0.1)
        assert site.ask(text, "GET", "/jobs").status_code == 401

    def test_the_password_of_basic_authentication_is_one(self, site: Any) -> None:
        for user in ("orthanc", ""):
            pair = base64.b64encode(f"{user}:{site.texts['ward']}".encode()).decode()
            assert site.ask(None, "GET", "/jobs", headers={"Authorization": f"Basic {pair}"}).status_code == 200
        for pair in (
            "%%%",
            base64.b64encode(b"orthanc:").decode(),
            base64.b64encode(b"\xff\xfe").decode(),
            base64.b64encode(b"no colon").decode(),
        ):
            assert site.ask(None, "GET", "/jobs", headers={"Authorization": f"Basic {pair}"}).status_code == 401

    def test_one_that_was_made_elsewhere_is_taken_once_and_never_again_after_its_end(self, site: Any) -> None:
        text = "ncg_" + "x" * 43
        key = site.keys.adopt("prometheus", [READ], text, by=NOBODY)
        assert site.keys.adopt("prometheus", [READ], text, by=NOBODY).id == key.id
        assert site.ask(text, "GET", "/metrics").status_code == 200
        with pytest.raises(InvalidKeyError):
            site.keys.adopt("other", [READ], text, by=NOBODY)
        site.keys.revoke(key.id, by=NOBODY)
        with pytest.raises(InvalidKeyError):
            site.keys.adopt("prometheus", [READ], text, by=NOBODY)
        with pytest.raises(InvalidKeyError):
            site.keys.adopt("prometheus", [READ], "password", by=NOBODY)

    def test_two_of_them_are_not_chosen_from(self, site: Any) -> None:
        good, bad = (f"Bearer {one}".encode() for one in (site.texts["ward"], "ncg_x"))
        for pair in ((good, bad), (bad, good), (good, good)):
            headers = [(b"Authorization", one) for one in pair]
            assert site.service.client.get("/jobs", headers=headers).status_code == 401

    def test_health_is_everybodys(self, site: Any) -> None:
        assert [site.ask(None, "GET", path).status_code for path in ("/livez", "/readyz")] == [200, 200]

    def test_none_is_kept_as_it_is(self, site: Any) -> None:
        site.submit("ward")
        data = site.service.gateway.settings.data
        content = b"".join(path.read_bytes() for path in data.rglob("*") if path.is_file())
        assert all(text.encode() not in content for text in site.texts.values())

    def test_a_stranger_costs_no_byte_of_its_body(self, site: Any) -> None:
        head = b"POST /segment HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000000000\r\n"
        head += b"Content-Type: multipart/form-data; boundary=b\r\nExpect: 100-continue\r\n\r\n"
        with socket.create_connection(("127.0.0.1", site.service.port)) as raw:
            raw.settimeout(5.0)
            raw.sendall(head)
            assert raw.recv(65536).startswith(b"HTTP/1.1 401 ")


class TestScopes:
    @pytest.mark.parametrize(
        ("who", "method", "path"),
        [
            ("reader", "POST", "/segment"),
            ("reader", "POST", "/dicomweb/studies"),
            ("reader", "DELETE", "/jobs/{job}"),
            ("sender", "GET", "/jobs"),
            ("sender", "GET", "/jobs/{job}/mask"),
            ("sender", "GET", "/metrics"),
            ("ward", "PUT", "/models/tiny/aliases/best"),
            ("ward", "POST", "/models/tiny/aliases/best/rollback"),
            ("ward", "PATCH", "/jobs"),
        ],
    )
    def test_what_is_not_allowed_is_said(self, site: Any, who: str, method: str, path: str) -> None:
        answer = site.ask(who, method, path.format(job=site.submit("ward")))
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")

    def test_an_administrator_may_everything(self, site: Any) -> None:
        job_id = site.submit("ward")
        assert site.ask("it", "PUT", "/models/tiny/aliases/best", json={"version": "1.1.0"}).status_code == 200
        assert site.ask("it", "GET", f"/jobs/{job_id}").status_code == 200
        assert site.ask("it", "DELETE", f"/jobs/{job_id}").status_code == 202


class TestOwnership:
    def test_another_clients_job_does_not_exist(self, site: Any) -> None:
        job_id = site.submit("ward")
        site.service.finish(job_id)
        asked = [one for one in site.operations(job_id) if job_id in one[1]]
        assert len(asked) >= 7
        for method, path in asked:
            body = {"json": {"decision": "confirm"}} if method == "POST" else {}
            mine, unknown = (site.ask("other", method, one, **body) for one in (path, path.replace(job_id, "f" * 32)))
            assert (mine.status_code, mine.json()["code"]) == (404, "job_not_found"), path
            assert mine.json() | {"instance": ""} == unknown.json() | {"instance": ""}
        assert site.ask("ward", "GET", f"/jobs/{job_id}/mask").status_code == 200

    def test_lists_hold_ones_own(self, site: Any) -> None:
        mine, _ = site.submit("ward"), site.submit("other")
        assert [one["id"] for one in site.ask("ward", "GET", "/jobs").json()["jobs"]] == [mine]
        assert len(site.ask("it", "GET", "/jobs").json()["jobs"]) == 2

    def test_any_key_of_the_client_sees_it(self, site: Any) -> None:
        job_id = site.submit("sender")
        assert site.ask("reader", "GET", f"/jobs/{job_id}").status_code == 200

    def test_a_foreign_cursor_shows_nothing_foreign(self, site: Any) -> None:
        for _ in range(2):
            site.submit("ward")
        following = site.ask("ward", "GET", "/jobs?limit=1").json()["next"]
        assert site.ask("other", "GET", following).json()["jobs"] == []


class TestLocal:
    """Without any key only this machine may ask."""

    def test_it_may_everything(self, service: Any) -> None:
        assert service.client.get("/jobs").status_code == 200

    @pytest.mark.parametrize(
        "headers",
        [
            {"Host": "rebound.example"},
            {"Host": "127.0.0.1.example:80"},
            {"Host": "["},
            {"Origin": "https://page.example"},
            {"Origin": "null"},
            {"X-Forwarded-For": "127.0.0.1"},
            {"Forwarded": "for=127.0.0.1"},
            {"Via": "1.1 proxy"},
        ],
    )
    def test_what_comes_from_elsewhere_is_refused(self, service: Any, headers: dict[str, str]) -> None:
        answer = service.client.post("/segment", files=SCAN, data=TINY, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (403, "not_local")

    @pytest.mark.parametrize("host", ["localhost:8000", "[::1]:8000", "127.0.0.5", "LOCALHOST."])
    def test_this_machine_has_several_names(self, service: Any, host: str) -> None:
        assert service.client.get("/jobs", headers={"Host": host}).status_code == 200

    def test_an_empty_password_is_none(self, service: Any) -> None:
        pair = base64.b64encode(b"orthanc:").decode()
        assert service.client.get("/jobs", headers={"Authorization": f"Basic {pair}"}).status_code == 200

    def test_a_wrong_key_is_not_better_than_none(self, service: Any) -> None:
        assert service.client.get("/jobs", headers={"Authorization": "Bearer ncg_x"}).status_code == 401

    def test_the_first_key_closes_the_door_for_good(self, service: Any) -> None:
        assert service.client.get("/jobs").status_code == 200
        keys = KeyRepository(service.gateway.repository.engine)
        key, _ = keys.create("ward", [READ], by=NOBODY)
        time.sleep(CACHED_S + 0.1)
        assert service.client.get("/jobs").status_code == 401
        keys.revoke(key.id, by=NOBODY)
        assert service.client.get("/jobs").status_code == 401

    @pytest.mark.parametrize("settings", [{"access": "keys"}, {"host": "0.0.0.0"}, {"host": "192.0.2.7"}])
    def test_a_key_is_asked_for_where_others_come(self, serve: Any, broker: Any, settings: dict[str, str]) -> None:
        service = serve(redis_url=broker.url, **settings)
        assert service.client.get("/jobs").status_code == 401
        assert service.client.get("/readyz").status_code == 200


class TestDatabaseAway:
    def test_nobody_comes_in(self, site: Any) -> None:
        engine = site.service.gateway.repository.engine
        with engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE api_keys RENAME TO elsewhere")
        for who in ("ward", None):
            answer = site.ask(who, "GET", "/jobs")
            assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")


class TestHost:
    def test_no_answer_repeats_it(self, site: Any) -> None:
        for method, path in [("GET", "/jobs/"), ("GET", "/jobs"), ("POST", "/segment"), ("GET", "//evil.example/jobs")]:
            answer = site.ask("it", method, path, headers={"Host": "evil.example"})
            assert "evil.example" not in answer.headers.get("Location", "")
            assert answer.status_code not in range(300, 400)
