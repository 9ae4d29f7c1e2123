"""How quickly the review console is there: `python -m benchmarks.console [--pictures FOLDER]`.

Starts the embedded service and Chromium, sends the demo's scans and one of 320x320x24 voxels, and prints the first
paint of the worklist and the time from a click until the large scan is to be seen, the worst of three rounds. Without a
graphics card Chromium draws with the processor.
"""

from __future__ import annotations

import argparse
import io
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

from imaging.nifti import write_nifti
from ncagate.client.sync import Client
from ncagate.demo import MODEL, Shown, segment, serving, template_scans

ROUNDS = 3
LARGE = (320, 320, 24)
READY = "canvas[data-ready=true]"
ARGUMENTS = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--no-sandbox")
FIRST_PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
SIZE = ViewportSize(width=1280, height=800)
TABLET = ViewportSize(width=1024, height=768)
SETTLE_S = 2.0
"""How long a scene is left to finish before a picture of it is taken."""
COLOURS = 256


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and take the pictures of the docs where they are asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=Path, help="Folder for console_*.png")
    pictures: Path | None = parser.parse_args(arguments).pictures
    Path("demo-out").mkdir(exist_ok=True)
    binary = shutil.which("chromium")
    with tempfile.TemporaryDirectory() as folder, serving() as url, Client(url) as client:
        jobs = [str(segment(client, one)["id"]) for one in [*template_scans(), _large(Path(folder))]]
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=binary, args=list(ARGUMENTS))
            _measure(browser, f"{url}/console", jobs[-1])
            if pictures is not None:
                client.erase(jobs[-1])
                _pictures(browser, f"{url}/console", jobs, pictures)
            browser.close()


def _large(folder: Path) -> Shown:
    """A made-up scan: a bright ball in noise."""
    axes = np.ogrid[tuple(slice(-1.0, 1.0, complex(0, n)) for n in LARGE)]
    ball = sum(axis**2 for axis in axes) < 0.4
    noise = np.random.default_rng(0).normal(300, 40, LARGE)
    write_nifti(folder / "large.nii.gz", (noise + 200 * ball).astype(np.float32), np.diag([0.6, 0.6, 3.0, 1.0]))
    return Shown("x".join(map(str, LARGE)), [folder / "large.nii.gz"])


def _measure(browser: Browser, url: str, job: str) -> None:
    paints, opened = [], []
    for _ in range(ROUNDS):
        page = browser.new_page(viewport=SIZE)
        page.goto(url)
        row = page.locator("tr", has_text=job[:8])
        row.wait_for()
        paints.append(_first_paint(page))
        began = time.perf_counter()
        row.click()
        page.wait_for_selector(READY)
        opened.append(time.perf_counter() - began)
        page.close()
    print(f"first paint of the worklist: {max(paints):.2f} s (model {MODEL})")
    print(f"a scan of {'x'.join(map(str, LARGE))} open after {max(opened):.2f} s")


def _first_paint(page: Page) -> float:
    """Seconds; the browser writes them down a moment after."""
    while (milliseconds := page.evaluate(FIRST_PAINT)) is None:
        time.sleep(0.05)
    return float(milliseconds) / 1000.0


def _pictures(browser: Browser, url: str, jobs: Sequence[str], folder: Path) -> None:
    accepted, flagged = jobs[:2]
    page = browser.new_page(viewport=SIZE)
    _show(page, f"{url}#/jobs/{flagged}", folder / "console_flag.png")
    page.close()
    page = browser.new_page(viewport=TABLET, color_scheme="dark")
    _show(page, f"{url}#/jobs/{accepted}", folder / "console_accept.png", "u")
    page.close()
    page = browser.new_page(viewport=ViewportSize(width=1280, height=420))
    page.goto(url)
    page.locator("tr", has_text=flagged[:8]).wait_for()
    _save(page.screenshot(), folder / "console_worklist.png")
    page.close()


def _show(page: Page, url: str, picture: Path, *keys: str) -> None:
    page.goto(url)
    page.wait_for_selector(READY)
    page.wait_for_selector("svg.chart")
    for key in keys:
        page.keyboard.press(key)
    time.sleep(SETTLE_S)
    _save(page.screenshot(), picture)


def _save(screenshot: bytes, picture: Path) -> None:
    """In few colours, which take a third of the room, chosen so that rare ones are not lost."""
    Image.open(io.BytesIO(screenshot)).convert("RGB").quantize(COLOURS, Image.Quantize.MAXCOVERAGE).save(
        picture, optimize=True
    )


if __name__ == "__main__":
    main()
