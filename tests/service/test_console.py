"""The review page as the gateway serves it: everybody's, without data, strict about what it may do."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from service.console import FOLDER

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "console"
BUILT_FROM = ("src", "index.html", "package.json", "package-lock.json", "tsconfig.json", "vite.config.js")
BUNDLE_BYTES_MAX = 3_000_000
FILES = sorted(str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*") if path.is_file())


def digest() -> str:
    """As vite.config.js takes it."""
    total = hashlib.sha256()
    for name in BUILT_FROM:
        start = SOURCES / name
        for path in sorted(start.rglob("*")) if start.is_dir() else [start]:
            if path.is_file():
                content = hashlib.sha256(path.read_bytes()).hexdigest()
                total.update(f"{path.relative_to(SOURCES).as_posix()} {content}\n".encode())
    text = total.hexdigest()
    return " ".join(text[start : start + 8] for start in range(0, len(text), 8))


class TestBundle:
    def test_was_built_from_the_sources_beside_it(self) -> None:
        assert json.loads((FOLDER / "build.json").read_text()) == {"sources": digest()}, "run `make console`"

    def test_is_small_and_has_no_source_maps(self) -> None:
        sizes = {name: len(gzip.compress((FOLDER / name).read_bytes())) for name in FILES}
        assert sum(sizes.values()) < BUNDLE_BYTES_MAX, sizes
        assert not [name for name in FILES if name.endswith(".map")]

    def test_names_the_licences_of_what_is_in_it(self) -> None:
        licences = (FOLDER / "licences.txt").read_text()
        lock = json.loads((SOURCES / "package-lock.json").read_text())["packages"]
        shipped = [name.removeprefix("node_modules/") for name, one in lock.items() if name and not one.get("dev")]
        assert "@niivue/niivue" in shipped
        for name in shipped:
            optional = lock[f"node_modules/{name}"].get("optional", False)
            assert optional or f"{name.split('node_modules/')[-1]} " in licences

    def test_the_lock_pins_every_package_and_names_no_registry(self) -> None:
        lock = json.loads((SOURCES / "package-lock.json").read_text())["packages"]
        assert all("integrity" in one and "resolved" not in one for name, one in lock.items() if name)


class TestServing:
    @pytest.mark.parametrize("path", ["/console", "/console/", *(f"/console/{name}" for name in FILES)])
    def test_every_file_is_everybodys_and_strict(self, site: Any, path: str) -> None:
        answer = site.ask(None, "GET", path)
        assert answer.status_code == 200
        policy = dict(one.strip().split(" ", 1) for one in answer.headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert policy["frame-ancestors"] == "'none'"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["x-content-type-options"] == "nosniff"
        immutable = "immutable" in answer.headers["cache-control"]
        assert immutable == ("/assets/" in path)

    @pytest.mark.parametrize("name", [name for name in FILES if name.startswith("assets/")])
    def test_names_that_are_kept_for_ever_have_a_hash(self, name: str) -> None:
        assert re.search(r"-[\w-]{8}\.\w+$", name)

    def test_what_a_browser_has_is_not_sent_again(self, site: Any) -> None:
        etag = site.ask(None, "GET", "/console").headers["etag"]
        again = site.ask(None, "GET", "/console", headers={"If-None-Match": etag})
        assert (again.status_code, again.content) == (304, b"")
        assert "content-security-policy" in again.headers

    def test_packed_and_plain_are_the_same(self, site: Any) -> None:
        packed = site.ask(None, "GET", "/console", headers={"Accept-Encoding": "gzip"})
        plain = site.ask(None, "GET", "/console", headers={"Accept-Encoding": "identity"})
        assert packed.headers["content-encoding"] == "gzip"
        assert packed.content == plain.content == (FOLDER / "index.html").read_bytes()

    @pytest.mark.parametrize(
        "path", ["/console/absent.js", "/console/../app.py", "/console/%2e%2e/app.py", "/consoles"]
    )
    def test_nothing_else_is_there(self, site: Any, path: str) -> None:
        assert site.ask("ward", "GET", path).status_code == 404

    def test_the_page_says_nothing_of_jobs_and_takes_nothing(self, site: Any) -> None:
        assert site.ask(None, "POST", "/console").status_code in (401, 405)
        assert site.ask(None, "GET", "/jobs").status_code == 401
