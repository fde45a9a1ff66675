"""Screenshots of the Dagster UI: graph, partitions, a slide's page, its checks, and the sensor.

pip install playwright                     # not part of the set-up; drives an installed Chromium
STPATH_HOME=DIR make dev                   # in another terminal
python -m tools.screenshots FOLDER --slide SLIDE_ID [--url http://127.0.0.1:3000] [--chromium PATH]
"""

import argparse
import shutil
from pathlib import Path
from urllib.parse import quote

SETTLE_MS = 4000
"""The pages load their parts one by one; there is no event that says that all have come."""


def pages_of(slide_id: str, stage: str) -> dict[str, str]:
    """Return the pages to show, name → path and query of the URL."""
    slide = quote(slide_id, safe="")
    return {
        "graph": "/asset-groups",
        "group": "/locations/stpath_assets/asset-groups/slide/lineage",
        "partitions": "/assets/slides?view=partitions",
        "slide": f"/assets/{stage}?view=partitions&partition={slide}",
        "checks": f"/assets/{stage}?view=checks",
        "sensor": "/locations/stpath_assets/sensors/new_scans",
        "runs": "/runs",
    }


def main() -> None:
    """Take the screenshots."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--slide", required=True)
    parser.add_argument("--stage", default="tile_grids")
    parser.add_argument("--url", default="http://127.0.0.1:3000")
    parser.add_argument("--chromium", default=shutil.which("chromium") or shutil.which("google-chrome"))
    chosen = parser.parse_args()
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        parser.error("playwright is not installed; type: pip install playwright")
    chosen.folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chosen.chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1500, "height": 950})
        for name, path in pages_of(chosen.slide, chosen.stage).items():
            page.goto(chosen.url + path)
            page.wait_for_timeout(SETTLE_MS)
            page.screenshot(path=chosen.folder / f"{name}.png")
        browser.close()


if __name__ == "__main__":
    main()
