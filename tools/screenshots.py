"""Screenshots of the slide viewer and of the Dagster UI, at 1440 × 900, from a data root in which a run has ended.

python -m tools.screenshots FOLDER --home DIR [--slide phantom_B] [--only viewer]

Starts both servers itself, on free ports, and needs Chromium. The pictures of the README and of docs/ are made with it:

stpath-assets demo --home DIR; python -m tools.screenshots docs --home DIR --only viewer
"""

import argparse
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from PIL import Image

if TYPE_CHECKING:
    from playwright.sync_api import Page

SETTLE_MS = 4000
"""Dagster's pages load their parts one by one; there is no event that says that all have come."""

SHOWN = "() => performance.getEntriesByName('gene shown').length"
WAIT_S = 120


def pages_of(slide_id: str, stage: str) -> dict[str, str]:
    """Return the Dagster pages to show, name → path and query of the URL."""
    slide = quote(slide_id, safe="")
    return {
        "overview": "/overview/activity/timeline",
        "graph": "/asset-groups",
        "group": "/locations/stpath_assets/asset-groups/slide/lineage",
        "asset": f"/assets/{stage}",
        "partitions": "/assets/slides?view=partitions",
        "slide": f"/assets/{stage}?view=partitions&partition={slide}",
        "checks": f"/assets/{stage}?view=checks",
        "sensor": "/locations/stpath_assets/sensors/new_scans",
        "runs": "/runs",
    }


def shoot_viewer(page: "Page", address: str, slide_id: str, folder: Path) -> None:
    """Go through the viewer as a pathologist does."""
    page.goto(f"{address}/")
    page.wait_for_selector("#slides img")
    page.wait_for_load_state("networkidle")
    save(page, folder / "viewer-slides.png")
    page.goto(f"{address}/slides/{quote(slide_id, safe='')}?gene=EPCAM&measured=1")
    page.wait_for_function(SHOWN)
    page.wait_for_timeout(800)
    page.mouse.click(190, 330)
    page.wait_for_selector("#similar img")
    page.mouse.move(700, 880)
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(500)
    save(page, folder / "viewer.png")
    page.click("#theme")
    page.keyboard.press("m")
    page.wait_for_timeout(800)
    save(page, folder / "viewer-dark.png")


def shoot_dagster(page: "Page", address: str, slide_id: str, stage: str, folder: Path) -> None:
    """Show each page of `pages_of`."""
    for name, path in pages_of(slide_id, stage).items():
        page.goto(address + path)
        page.wait_for_timeout(SETTLE_MS)
        save(page, folder / f"dagster-{name}.png")


def save(page: "Page", path: Path) -> None:
    """Save what is on the screen as a small PNG."""
    Image.open(io.BytesIO(page.screenshot())).convert("RGB").save(path, optimize=True)
    sys.stdout.write(f"{path}\n")


@contextmanager
def served(home: Path) -> Iterator[tuple[str, str]]:
    """Yield the addresses of the Dagster UI and of the viewer, started for a data root."""
    ui, viewer = _free_port(), _free_port()
    env = {**os.environ, "STPATH_HOME": str(home), "DAGSTER_HOME": str(home / "dagster"), "STPATH_VIEWER_PORT": viewer}
    program = [sys.executable, "-m", "stpath_assets.defs.dev", "--port", ui]
    process = subprocess.Popen(program, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for port in (ui, viewer):
            _wait_for(f"http://127.0.0.1:{port}/", process)
        yield f"http://127.0.0.1:{ui}", f"http://127.0.0.1:{viewer}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def _free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def _wait_for(url: str, process: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + WAIT_S
    while process.poll() is None and time.monotonic() < until:
        try:
            urllib.request.urlopen(url).close()
            return
        except OSError:
            time.sleep(0.3)
    raise SystemExit(f"error: {url} does not answer; does the data root hold a run?")


def main() -> None:
    """Take the screenshots."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--slide", default="phantom_B")
    parser.add_argument("--stage", default="stpath_predictions")
    parser.add_argument("--only", choices=["viewer", "dagster"])
    parser.add_argument("--chromium", default=shutil.which("chromium") or shutil.which("google-chrome"))
    chosen = parser.parse_args()
    from playwright.sync_api import sync_playwright

    chosen.folder.mkdir(parents=True, exist_ok=True)
    with served(chosen.home.absolute()) as (ui, viewer), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chosen.chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1440, "height": 900}, color_scheme="light")
        if chosen.only != "dagster":
            shoot_viewer(page, viewer, chosen.slide, chosen.folder)
        if chosen.only != "viewer":
            shoot_dagster(page, ui, chosen.slide, chosen.stage, chosen.folder)
        browser.close()


if __name__ == "__main__":
    main()
