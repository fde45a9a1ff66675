"""The viewer in a real browser: what a pathologist does, by mouse and by keyboard, without an error in the console."""

import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from stpath_assets.settings import load_settings
from stpath_assets.slides import Registry
from stpath_assets.storage import Store
from stpath_assets.viewer import create_app
from tests.roots import copy_home

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.server

SHOWN = "() => performance.getEntriesByName('gene shown').length >= {}"
CENTER = {"x": 500, "y": 400}


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs Chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])


@contextmanager
def served(home: Path) -> Iterator[str]:
    """The address of a viewer of a data root, in a thread."""
    import uvicorn

    config = uvicorn.Config(create_app(load_settings(home)), port=0, log_level="error", lifespan="on")  # type: ignore[arg-type]
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.02)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(10)


@pytest.fixture(scope="module")
def address(finished: Path) -> Iterator[str]:
    """A viewer of the root that all tests share."""
    with served(finished / "home") as found:
        yield found


@contextmanager
def opened(browser: "Browser", address: str) -> Iterator["Page"]:
    """Slide `a` with its first gene. A line in the console, or a request that fails, is an error."""
    page, wrong = browser.new_page(viewport={"width": 1440, "height": 900}), list[str]()
    # Canvas2D: reading pixels is slow, which only these tests do.
    page.on("console", lambda said: None if said.text.startswith("Canvas2D") else wrong.append(said.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("response", lambda answer: wrong.append(f"{answer.status} {answer.url}") if answer.status >= 400 else None)
    page.goto(f"{address}/slides/a")
    page.wait_for_function(SHOWN.format(1))
    yield page
    page.close()
    assert wrong == []


@pytest.fixture
def page(browser: "Browser", address: str) -> Iterator["Page"]:
    with opened(browser, address) as found:
        yield found


def painted(page: "Page", view: str = "predicted") -> int:
    """How many pixels of a view are painted over by tiles or spots."""
    return page.evaluate(
        """view => { const c = document.querySelector(`#${view} .marks`);
        return c.getContext('2d').getImageData(0, 0, c.width, c.height).data.filter((v, i) => i % 4 == 3 && v).length }""",
        view,
    )


def text(page: "Page", of: str) -> str:
    return page.locator(of).inner_text()


def test_a_slide_is_shown_with_a_gene_over_it(page: "Page") -> None:
    assert page.title() == "a · stpath-assets"
    assert text(page, "#predicted-said") == "EPCAM, predicted by stpath-demo (log1p expression)"
    assert text(page, "#note") == "demo weights, not biology"
    page.wait_for_function("() => performance.getEntriesByName('first picture').length")
    assert painted(page) > 10_000
    page.keyboard.press("o")
    assert painted(page) == 0
    page.keyboard.press("o")
    before = painted(page)
    page.mouse.move(500, 400)
    page.mouse.wheel(0, -400)
    page.wait_for_timeout(700)
    assert painted(page) > before, "tiles grow with the scan"


def test_genes_are_chosen_by_keyboard(page: "Page") -> None:
    page.keyboard.press("g")
    page.keyboard.type("vi")
    assert page.locator("#genes [role=option]").all_inner_texts()[0].startswith("VIM")
    assert page.get_attribute("#gene", "aria-expanded") == "true"
    page.keyboard.press("Enter")
    page.wait_for_function(SHOWN.format(2))
    assert text(page, "#predicted-said").startswith("VIM, predicted")
    assert "gene=VIM" in page.url
    page.keyboard.press("Escape")
    page.keyboard.press("]")
    page.wait_for_function(SHOWN.format(3))
    assert text(page, "#predicted-said").startswith("EPCAM, predicted")
    page.reload()
    page.wait_for_function(SHOWN.format(1))
    assert text(page, "#predicted-said").startswith("EPCAM, predicted"), "the address says what is shown"


def test_limits_and_colours(page: "Page") -> None:
    page.fill("#high", "9")
    assert page.input_value("#limits") == "own"
    page.fill("#low", "10")
    assert "upper limit must be above" in text(page, "#status")
    assert page.get_attribute("#low", "aria-invalid") == "true"
    page.select_option("#limits", "cohort")
    assert page.get_attribute("#low", "aria-invalid") == "false"
    assert float(page.input_value("#high")) < 9
    before = page.evaluate("() => document.getElementById('bar').toDataURL()")
    page.select_option("#colours", "viridis")
    page.wait_for_function("before => document.getElementById('bar').toDataURL() !== before", arg=before)


def test_a_tile_shows_its_genes_and_those_alike(page: "Page") -> None:
    page.mouse.click(CENTER["x"], CENTER["y"])
    page.wait_for_selector("#similar img")
    page.wait_for_selector("#tile-genes tr:nth-child(2)")
    assert page.locator("#tile-genes tr").count() == 2
    assert "tissue" in text(page, "#tile-facts")
    page.wait_for_function("() => document.getElementById('tile-picture').naturalWidth === 224")
    page.locator("#tile-genes button", has_text="VIM").click()
    page.wait_for_function("() => document.getElementById('predicted-said').innerText.startsWith('VIM')")
    chosen = text(page, "#tile-facts dd >> nth=0")
    page.locator("#similar a").first.click()
    page.wait_for_function(SHOWN.format(1))
    page.wait_for_selector("#similar img")
    assert text(page, "#tile-facts dd >> nth=0") != chosen


def test_a_tile_under_the_pointer_says_its_highest_genes(page: "Page") -> None:
    page.mouse.move(CENTER["x"], CENTER["y"])
    page.wait_for_function("() => document.getElementById('status').innerText.includes('highest z: ')")
    assert text(page, "#status").startswith("r0000")


def test_measured_spots_lie_beside_it(page: "Page") -> None:
    page.keyboard.press("m")
    page.wait_for_selector("#measured canvas.marks")
    assert text(page, "#measured-said") == "EPCAM, measured (log1p of counts), same colours"
    page.wait_for_function("() => document.querySelector('#measured .marks').width > 100")
    page.wait_for_timeout(600)
    assert painted(page, "measured") > 50
    page.select_option("#limits", "each")
    page.wait_for_function("() => / to /.test(document.getElementById('measured-said').innerText)")
    assert painted(page, "predicted") > 5_000


def test_a_region_is_drawn_and_kept(browser: "Browser", finished: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    copy_home(finished / "home", home)
    with served(home) as address, opened(browser, address) as page:
        draw_and_save(page)
        page.reload()
        page.wait_for_selector("#region-list li")
    uri = Registry(Store(home)).get("a").regions_uri
    assert uri is not None
    [feature] = json.loads(Path(uri).read_text())["features"]
    ring = feature["geometry"]["coordinates"][0]
    assert len(ring) == 5
    assert ring[0] == ring[-1]
    assert ring[1][0] > ring[0][0], "right of it"
    assert abs(ring[1][1] - ring[0][1]) <= 1, "at the same height"
    assert all(0 < x < 1600 and 0 < y < 1200 for x, y in ring)


def draw_and_save(page: "Page") -> None:
    """Draw four corners, take a fifth back, and save."""
    page.keyboard.press("d")
    assert page.get_attribute("#region-draw", "aria-pressed") == "true"
    for x, y in ((300, 250), (700, 250), (700, 600), (300, 600), (310, 400)):
        page.mouse.click(x, y)
        page.wait_for_timeout(350)  # two clicks within 300 ms are a double click
    page.keyboard.press("Backspace")
    page.keyboard.press("Enter")
    assert text(page, "#region-list").startswith("Tissue, 4 corners")
    page.click("#region-save")
    page.wait_for_function("() => document.getElementById('status').innerText.startsWith('Regions saved')")


def test_all_slides_and_the_theme(page: "Page", address: str) -> None:
    page.goto(f"{address}/")
    page.wait_for_selector("#slides img")
    assert text(page, "#slides strong") == "a"
    page.fill("#search", "brain")
    assert page.locator("#slides li").count() == 0
    page.fill("#search", "breast")
    light = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    page.click("#theme")
    assert page.evaluate("() => getComputedStyle(document.body).backgroundColor") != light
    page.locator("#slides a").click()
    page.wait_for_function(SHOWN.format(1))
    assert page.get_attribute("html", "data-theme") == "dark"


def test_what_a_screen_reader_is_told(page: "Page") -> None:
    nameless = page.evaluate(
        """() => [...document.querySelectorAll('button, input, select, img, a')].filter(e => !e.closest('[hidden]')
        && !e.closest('.openseadragon-container') && !(e.getAttribute('aria-label') || e.innerText || e.labels?.length
        || e.hasAttribute('alt') || e.getAttribute('aria-labelledby'))).map(e => e.outerHTML)"""
    )
    assert nameless == []
    assert page.locator("main").count() == page.locator("aside[aria-label]").count() == page.locator("h1").count() == 1
    assert page.get_attribute("#status", "role") == "status"
    said = page.get_attribute("#predicted .openseadragon-canvas", "aria-label")
    assert said is not None
    assert said.startswith("Slide a, EPCAM, predicted")
    page.keyboard.press("?")
    assert page.locator("#help").is_visible()
    page.keyboard.press("Escape")
    assert not page.locator("#help").is_visible()
