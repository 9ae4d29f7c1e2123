"""The review page in a real Chromium, which must say nothing wrong and ask nobody else."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, Request, sync_playwright

from tests.e2e.conftest import Stack, served
from tests.service.conftest import Site, published, serve, service, serving, site

__all__ = ["published", "serve", "served", "service", "serving", "site"]

PATIENCE_MS = 60_000
ARGUMENTS = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--no-sandbox")
"""WebGL without a graphics card; the machine that tests runs it as root, which the sandbox does not like."""

Open = Callable[..., AbstractContextManager[Page]]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium; without one the test is skipped, and fails where CI=true.

    It ends with its module: Playwright's event loop runs in this thread as long, where nobody else's can.
    """
    binary = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if binary is None:
        if os.environ.get("CI") == "true":
            pytest.fail("no chromium")
        pytest.skip("no chromium on PATH")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=binary, args=list(ARGUMENTS))
        yield browser
        browser.close()


class Watch:
    """What a page asked for, and what it complained of."""

    def __init__(self, page: Page) -> None:
        self.requests: list[Request] = []
        self.complaints: list[str] = []
        self.refusals_expected = 0
        page.on("request", lambda request: self.requests.append(request))
        page.on("requestfailed", self._failed)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", lambda one: self._said(one.type, one.text))

    def _failed(self, request: Request) -> None:
        if request.failure != "net::ERR_ABORTED":  # the page's own doing, as it went elsewhere
            self.complaints.append(f"{request.url}: {request.failure}")

    def _said(self, kind: str, text: str) -> None:
        if "401 (Unauthorized)" in text:  # Chromium tells of every answer that is an error
            self.refusals_expected -= 1
        elif kind in ("error", "warning"):
            self.complaints.append(text)


@pytest.fixture
def visit(browser: Browser) -> Open:
    """Opens the page of a gateway; when it is left, nothing went wrong and nobody else was asked."""

    @contextmanager
    def visiting(url: str, *, refusals: int = 0, blocked: str = "^$", **options: Any) -> Iterator[Page]:
        context = browser.new_context(viewport={"width": 1280, "height": 800}, **options)
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        watch = Watch(page)
        watch.refusals_expected = refusals
        page.goto(f"{url}/console")
        try:
            yield page
        finally:
            context.close()
        hosts = {urlsplit(one.url).netloc for one in watch.requests if not one.url.startswith(("data:", "blob:"))}
        assert hosts == {urlsplit(url).netloc}
        assert [one for one in watch.complaints if not re.search(blocked, one)] == []
        assert watch.refusals_expected == 0

    return visiting


@pytest.fixture(scope="module")
def stack(served: Callable[..., AbstractContextManager[Stack]]) -> Iterator[Stack]:
    """The whole service."""
    with served() as running:
        yield running


@pytest.fixture
def address(site: Site) -> str:
    """Of a gateway to which clients need keys."""
    return f"http://127.0.0.1:{site.service.port}"
