"""The pages in a browser, over a gateway whose jobs the tests finish themselves."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Error, Page

from tests.console.conftest import Open
from tests.service.conftest import Site

STYLE = (Path(__file__).resolve().parents[2] / "console" / "src" / "style.css").read_text()
TEXT_PAIRS = [
    *[(ink, ground) for ink in ("text", "faint", "accent", "flag", "stop") for ground in ("back", "card", "chosen")],
    ("on-accent", "accent"),
]
ENOUGH = 4.5
"""Of WCAG 2.2 AA, for text of any size."""

DROP = """() => {
    const carried = new DataTransfer();
    carried.items.add(new File(["scan"], "dropped.nii"));
    window.dispatchEvent(new DragEvent("drop", {dataTransfer: carried}));
}"""


def enter(page: Page, key: str) -> None:
    page.get_by_label("API key or token").fill(key)
    page.get_by_role("button", name="Go on").click()


class TestKey:
    def test_is_asked_for_kept_in_the_tab_and_written_nowhere_else(self, site: Site, address: str, visit: Open) -> None:
        job, key = site.submit("ward"), site.texts["ward"]
        with visit(address, refusals=3) as page:
            enter(page, "ncg_wrong")
            page.get_by_text("The key was not taken.").wait_for()
            enter(page, key)
            page.get_by_text(job[:8]).wait_for()
            assert page.evaluate("Object.values(sessionStorage)") == [key]
            assert page.evaluate("localStorage.length + document.cookie.length") == 0
            page.reload()
            page.get_by_text(job[:8]).wait_for()
            assert key not in page.url
            page.get_by_role("button", name="Forget key").click()
            page.get_by_label("API key or token").wait_for()
            assert page.evaluate("sessionStorage.length") == 0


class TestWorklist:
    def test_what_is_flagged_and_not_decided_comes_first_and_the_list_is_alive(
        self, site: Site, address: str, visit: Open
    ) -> None:
        flagged, decided, queued = (site.submit("ward") for _ in range(3))
        for job in (flagged, decided):
            site.service.finish(job)
        site.ask("ward", "POST", f"/jobs/{decided}/reviews", json={"decision": "reject"})
        with visit(address, refusals=1) as page:
            enter(page, site.texts["ward"])
            rows = page.locator("table.jobs tbody tr")
            rows.nth(2).wait_for()
            texts, jobs = rows.all_inner_texts(), (flagged, queued, decided)
            assert [job[:8] in text for job, text in zip(jobs, texts, strict=True)] == [True, True, True]
            assert "Flag" in rows.first.inner_text()
            assert "0.66 (0.41–0.83)" in rows.first.inner_text()
            site.service.finish(queued)
            page.get_by_text("2 flagged scans need a person").wait_for()

    def test_is_worked_by_keyboard(self, site: Site, address: str, visit: Open) -> None:
        older, newer = site.submit("ward"), site.submit("ward")
        for job in (older, newer):
            site.service.fail(job)
        with visit(address, refusals=1) as page:
            enter(page, site.texts["ward"])
            page.get_by_text(older[:8]).wait_for()
            page.keyboard.press("?")
            page.get_by_role("dialog", name="Keyboard").wait_for()
            page.keyboard.press("Escape")
            page.keyboard.press("/")
            page.keyboard.type(older[:8])
            page.keyboard.press("Escape")
            page.get_by_text(newer[:8]).wait_for(state="detached")
            page.keyboard.press("j")
            page.keyboard.press("Enter")
            page.wait_for_url(f"**/console#/jobs/{older}")
            page.get_by_text("the gzip stream ends early").wait_for()
            page.keyboard.press("Escape")
            page.wait_for_url("**/console#/")


class TestModels:
    def test_a_version_is_promoted_and_rolled_back(self, site: Site, address: str, visit: Open) -> None:
        with visit(address, refusals=1) as page:
            enter(page, site.texts["it"])
            page.get_by_role("link", name="Models").click()
            tiny = page.get_by_label("Model tiny")
            tiny.get_by_role("button", name="Promote").click()
            page.get_by_role("button", name="Yes").click()
            tiny.locator(".version", has_text="1.1.0").get_by_text("production").wait_for()
            assert site.ask("it", "GET", "/models/tiny").json()["aliases"] == {"production": "1.1.0"}
            tiny.get_by_role("button", name="Roll back").click()
            page.get_by_role("button", name="Yes").click()
            tiny.locator(".version", has_text="1.0.0").get_by_text("production").wait_for()
            assert site.ask("it", "GET", "/models/tiny").json()["aliases"] == {"production": "1.0.0"}


class TestUpload:
    def test_what_is_dropped_onto_the_page_becomes_a_job(self, site: Site, address: str, visit: Open) -> None:
        with visit(address, refusals=1) as page:
            enter(page, site.texts["ward"])
            page.get_by_text("No scan has come yet.").wait_for()
            page.evaluate(DROP)
            page.get_by_role("dialog", name="Segment dropped.nii").wait_for()
            page.get_by_label("Model").select_option("tiny")
            page.get_by_label("Urgent").check()
            page.get_by_role("button", name="Send").click()
            page.get_by_text("Queued").first.wait_for()
            (job,) = site.ask("ward", "GET", "/jobs").json()["jobs"]
            assert (job["id"], job["model"], job["priority"]) == (page.url.rsplit("/", 1)[1], "tiny", "urgent")


class TestQuality:
    def test_shows_verdicts_versions_and_drift(self, site: Site, address: str, visit: Open) -> None:
        jobs = [site.submit("it") for _ in range(3)]
        for job in jobs[:2]:
            site.service.finish(job)
        site.service.fail(jobs[2])
        site.ask("it", "POST", f"/jobs/{jobs[0]}/reviews", json={"decision": "confirm"})
        with visit(address, refusals=1) as page:
            enter(page, site.texts["it"])
            page.get_by_role("link", name="Quality").click()
            days = page.get_by_label("Verdicts by day").locator("tbody td")
            days.first.wait_for()
            assert days.all_inner_texts()[1:] == ["0", "2", "1"]
            versions = page.get_by_label("Versions").locator("tbody td").all_inner_texts()
            assert versions == ["1.0.0", "2", "2 (100 %)", "0.66", "0.300", "1", "0", "1"]
            page.get_by_label("Distributions").locator("path.bars.range").wait_for()
            page.get_by_label("Drift").get_by_text("1.0.0: no reference to compare with").wait_for()


class TestPolicy:
    def test_a_script_that_got_into_the_page_does_not_run(self, site: Site, address: str, visit: Open) -> None:
        with visit(address, refusals=1, blocked="Trusted(Script|HTML)") as page:
            page.get_by_label("API key or token").wait_for()
            with pytest.raises(Error, match="TrustedScript"):
                page.add_script_tag(content="window.run = true")
            with pytest.raises(Error, match="TrustedHTML"):
                page.evaluate("document.body.innerHTML = '<img src=x>'")
            assert page.evaluate("window.run === undefined")

    def test_says_what_it_is_not(self, address: str, visit: Open) -> None:
        with visit(address, refusals=1) as page:
            page.get_by_label("API key or token").wait_for()
            assert page.get_by_text("Research, not a medical device").is_visible()


class TestContrast:
    @pytest.mark.parametrize("scheme", ["light", "dark"])
    @pytest.mark.parametrize(("ink", "ground"), TEXT_PAIRS)
    def test_text_can_be_read(self, scheme: str, ink: str, ground: str) -> None:
        light, dark = re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)
        colours = dict(re.findall(r"--([\w-]+): (#\w{6});", light if scheme == "light" else dark))
        high, low = sorted((luminance(colours[ink]), luminance(colours[ground])), reverse=True)
        assert (high + 0.05) / (low + 0.05) >= ENOUGH


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2.2 has it."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
