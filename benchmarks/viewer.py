"""How fast the slide viewer is, in a real browser: on the demo, and on a scan of 40,000 × 40,000 px.

    python -m benchmarks.viewer

Medians of several tries. Times are the browser's, from a click or the start of the page until pixels are painted. The server has
just been started and has answered one question.
"""

import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile

from benchmarks.cohort_roots import Cohort, grow, slide_name
from benchmarks.host import free_port
from stpath_assets.demo.phantom import draw_phantom
from stpath_assets.storage import Store

if TYPE_CHECKING:
    from playwright.sync_api import Page

SIDE_PX, BLOCK_PX = 40_000, 256
TRIES = 7
TARGETS = {"first picture": 1000, "another gene": 300, "pan": 1000}
"""Most milliseconds."""

SHOWN = "() => performance.getEntriesByName('gene shown').length"
SHARP = "() => document.querySelector('#predicted').dataset.loaded === 'yes'"
LOADED = "() => performance.getEntriesByName('first picture').length"


def draw_scan(path: Path) -> None:
    """Write a pyramid of JPEG blocks, one drawn block of tissue repeated, by factors of 4 down to 2,500 px."""
    field = draw_phantom(3).image[2000 : 2000 + 1024, 2000 : 2000 + 1024]
    blocks = [
        np.ascontiguousarray(field[y : y + BLOCK_PX, x : x + BLOCK_PX])
        for y in range(0, 1024, BLOCK_PX)
        for x in range(0, 1024, BLOCK_PX)
    ]
    options: dict[str, Any] = {
        "tile": (BLOCK_PX, BLOCK_PX),
        "photometric": "rgb",
        "compression": "jpeg",
        "dtype": np.uint8,
    }
    with tifffile.TiffWriter(path, bigtiff=True) as tif:
        for i, factor in enumerate((1, 4, 16)):
            side = SIDE_PX // factor
            across = -(-side // BLOCK_PX)
            pixels = (blocks[(r % 4) * 4 + c % 4] for r in range(across) for c in range(across))
            more = (
                {"subifds": 2, "resolution": (40_000, 40_000), "resolutionunit": "CENTIMETER"}
                if i == 0
                else {"subfiletype": 1}
            )
            tif.write(pixels, shape=(side, side, 3), **options, **more)


def big_root(folder: Path) -> Path:
    """Return a data root with one large scan, 3,560 tiles and 1,000 genes."""
    cohort = Cohort(folder, 1, 3560, 1000)
    grow(cohort)
    scan = folder / "large.tif"
    draw_scan(scan)
    facts = [str(scan), SIDE_PX, SIDE_PX, 0.25, scan.stat().st_size, scan.stat().st_mtime_ns]
    Store(cohort.root).lake.transact(
        lambda c: c.execute(
            "update lake.parts.slides set uri = ?, width_px = ?, height_px = ?, mpp = ?, size_bytes = ?, modified_ns = ?",
            facts,
        )
    )
    return cohort.root


@contextmanager
def served(home: Path) -> Iterator[str]:
    """Yield the address of a viewer of its own process."""
    port = free_port()
    program = [sys.executable, "-m", "stpath_assets", "view", "--no-browser", "--port", port, "--home", str(home)]
    started = time.monotonic()
    with subprocess.Popen(program, stdout=subprocess.DEVNULL) as process:
        try:
            while True:
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/api/slides").read()
                    break
                except OSError:
                    time.sleep(0.05)
            print(f"  {'server answers after':26} {1000 * (time.monotonic() - started):7.0f} ms")
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def timed(page: "Page", work: Callable[[], object], until: str) -> float:
    """Return milliseconds until the page's function `until` returns true."""
    start = page.evaluate("() => performance.now()")
    work()
    page.wait_for_function(until)
    return float(page.evaluate("() => performance.now()")) - start


def first_pictures(page: "Page", address: str) -> list[float]:
    """Open the slide again and again; returns when the first picture was painted after the start of the page, ms."""
    found = []
    for _ in range(TRIES):
        page.goto(address)
        page.wait_for_function(LOADED)
        page.wait_for_function(SHOWN)
        found.append(float(page.evaluate("() => performance.getEntriesByName('first picture')[0].startTime")))
    return found


def gene_switches(page: "Page") -> list[float]:
    """Go from gene to gene."""
    found = []
    for _ in range(TRIES):
        until = f"() => performance.getEntriesByName('gene shown').length > {page.evaluate(SHOWN)}"
        found.append(timed(page, lambda: page.keyboard.press("]"), until))
    return found


def pans(page: "Page") -> list[float]:
    """Drag half a view at a time, always to where nobody was; returns how long after each drag all of the view is sharp, ms."""
    for _ in range(6):
        page.keyboard.press("+")
        page.wait_for_timeout(450)
    page.wait_for_function(SHARP)
    found = []
    for x, y in [(-500, 0)] * 3 + [(0, -380)] + [(500, 0)] * 6 + [(0, -380)] + [(-500, 0)] * 6:
        left, top = 530 - x // 2, 440 - y // 2
        page.mouse.move(left, top)
        page.mouse.down()
        page.mouse.move(left + x, top + y, steps=8)
        page.mouse.up()
        start = page.evaluate("() => performance.now()")
        page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        page.wait_for_function(SHARP)
        found.append(float(page.evaluate("() => performance.now()")) - start)
    return found


def report(name: str, found: list[float]) -> bool:
    """Print a measurement; returns whether its median is within the target."""
    median, target = statistics.median(found), TARGETS[name]
    print(f"  {name:26} {median:7.0f} ms (slowest {max(found):.0f}, target {target})")
    return median <= target


def main() -> int:
    """Measure. Returns 1 if a target is missed."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        print("needs Chromium: apt-get install chromium")
        return 1
    print(f"{platform.machine()}, headless Chromium")
    good = True
    with tempfile.TemporaryDirectory() as temp, sync_playwright() as playwright:
        demo = Path(temp) / "demo"
        subprocess.run(
            [sys.executable, "-m", "stpath_assets", "demo", "--home", str(demo)], check=True, capture_output=True
        )
        large = "40,000 × 40,000 px, 3,560 tiles × 1,000 genes"
        roots = (("the demo", demo, "phantom_B"), (large, big_root(Path(temp)), slide_name(0)))
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for name, home, slide in roots:
            print(name)
            with served(home) as address:
                page = browser.new_page(viewport={"width": 1440, "height": 900})
                good &= report("first picture", first_pictures(page, f"{address}/slides/{slide}"))
                good &= report("another gene", gene_switches(page))
                good &= report("pan", pans(page))
                page.close()
        browser.close()
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
