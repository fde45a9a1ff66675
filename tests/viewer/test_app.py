"""The viewer's URLs: only slides of the lake, only to pages of its own, nothing private, and errors of one line."""

import io
import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from stpath_assets.catalog import Catalog
from stpath_assets.settings import load_settings
from stpath_assets.slides import Registry
from stpath_assets.storage import Store
from stpath_assets.tiles import TileParameters, centers_of, store_tiles
from stpath_assets.viewer import create_app, link_to
from tests.roots import command

SLIDE = "/api/slides/a"
MODEL = {"model": "stpath-demo"}


def serve(home: Path) -> TestClient:
    return TestClient(create_app(load_settings(home)), base_url="http://127.0.0.1:3100")  # type: ignore[arg-type]


@pytest.fixture
def client(finished_home: Path) -> TestClient:
    """The viewer of a copy that a test may change."""
    return serve(finished_home)


@pytest.fixture(scope="module")
def reading(finished: Path) -> TestClient:
    """The viewer of the root that all tests share: nothing is changed."""
    return serve(finished / "home")


def get(client: TestClient, path: str, **question: str) -> Any:
    answer = client.get(path, params=question)
    assert answer.status_code == 200, answer.text
    return answer.json()


def size_of(answer: httpx.Response) -> tuple[int, int]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/jpeg"
    return Image.open(io.BytesIO(answer.content)).size


def test_slides_and_what_is_known_of_them(reading: TestClient) -> None:
    [slide] = get(reading, "/api/slides")["slides"]
    assert (slide["slide_id"], slide["organ"], slide["predicted"], slide["measured"]) == ("a", "Breast", True, True)
    about = get(reading, SLIDE)
    assert (about["width"], about["height"], about["stretch_y"], about["mpp"]) == (1600, 1200, 1.0, 0.5)
    assert about["models"] == [{"model": "stpath-demo", "genes": 2, "note": "demo weights, not biology"}]


def test_pages_and_pictures(reading: TestClient) -> None:
    about = get(reading, SLIDE)
    assert size_of(reading.get(f"{SLIDE}/picture/{about['version']}/11/0_0.jpg")) == (512, 512)
    assert size_of(reading.get(f"{SLIDE}/picture/{about['version']}/11/3_2.jpg")) == (64, 176)
    assert size_of(reading.get(f"{SLIDE}/thumbnail.jpg")) == (400, 300)
    tile = get(reading, f"{SLIDE}/expression", gene="VIM", **MODEL)["tile_id"][0]
    assert size_of(reading.get(f"{SLIDE}/tiles/{tile}.jpg")) == (224, 224)
    for page in ("/", "/slides/a"):
        answer = reading.get(page)
        assert answer.status_code == 200
        assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert reading.get(f"{SLIDE}/thumbnail.jpg").headers["cross-origin-resource-policy"] == "same-origin"


def test_values_are_those_of_the_catalog(reading: TestClient, finished: Path) -> None:
    shown = get(reading, f"{SLIDE}/expression", gene="VIM", **MODEL)
    with Catalog(load_settings(finished / "home")) as catalog:
        rows = catalog.sql(
            "select tile_id, expression_log1p, center_x_px from gene_map('a', 'VIM') order by tile_id"
        ).fetchall()
        counts = catalog.sql(
            "select spot_id, count from spot_expression where gene = 'VIM' order by spot_id"
        ).fetchall()
    assert shown["tile_id"] == [r[0] for r in rows]
    np.testing.assert_allclose(shown["value"], [r[1] for r in rows], atol=6e-5)
    assert shown["x"] == [r[2] for r in rows]
    assert shown["limits"]["slide"][0] < shown["limits"]["slide"][1]
    measured = get(reading, f"{SLIDE}/measured", gene="VIM", **MODEL)
    assert measured["spot_id"] == [r[0] for r in counts]
    np.testing.assert_allclose(measured["value"], np.log1p([r[1] for r in counts]), atol=6e-5)
    assert measured["radius"] == pytest.approx(60 * 0.275)
    assert {g["gene"] for g in get(reading, f"{SLIDE}/genes", **MODEL)["genes"]} == {"EPCAM", "VIM"}


def test_a_tile_has_its_genes_and_those_alike(reading: TestClient) -> None:
    tiles = get(reading, f"{SLIDE}/expression", gene="VIM", **MODEL)["tile_id"]
    tile = get(reading, f"{SLIDE}/tiles/{tiles[0]}", **MODEL)
    assert {g["gene"] for g in tile["genes"]} == {"EPCAM", "VIM"}
    assert tile["genes"][0]["z"] >= tile["genes"][1]["z"]
    alike = get(reading, f"{SLIDE}/tiles/{tiles[0]}/similar")["tiles"]
    assert 0 < len(alike) <= 8
    assert tiles[0] not in {t["tile_id"] for t in alike}
    assert [t["similarity"] for t in alike] == sorted((t["similarity"] for t in alike), reverse=True)


@pytest.mark.parametrize(
    ("path", "status", "why"),
    [
        ("/api/slides/nope", 404, "nope: no such slide here; registered: a"),
        (f"{SLIDE}/expression?gene=VIM", 400, "the question has no model"),
        (f"{SLIDE}/expression?gene=NOPE&model=stpath-demo", 422, "no gene NOPE"),
        (f"{SLIDE}/expression?gene=VIM&model=other", 404, "other has not predicted VIM"),
        (f"{SLIDE}/tiles/r9?model=stpath-demo", 404, "its grid has no tile r9"),
        (f"{SLIDE}/tiles/r9.jpg", 404, "its grid has no tile r9"),
        (f"{SLIDE}/tiles/r9/similar", 404, "its grid has no tile r9"),
        (f"{SLIDE}/picture/x/40/0_0.jpg", 404, "no such picture"),
        ("/api/slides/..%2f..%2fetc", 404, ""),
        ("/api/slides/a'; drop table slides; --", 404, "no such slide"),
        (f"{SLIDE}/tiles/x' or '1'='1?model=stpath-demo", 404, "its grid has no tile"),
    ],
)
def test_what_is_not_there_is_one_line(reading: TestClient, path: str, status: int, why: str) -> None:
    answer = reading.get(path)
    assert answer.status_code == status
    said = answer.json()["error"]
    assert why in said
    assert "\n" not in said


def test_a_slide_that_is_not_there_has_a_page_that_says_so(reading: TestClient) -> None:
    answer = reading.get("/slides/nope")
    assert answer.status_code == 404
    assert "missing.js" in answer.text


def test_a_retired_slide_is_not_served(client: TestClient, finished_home: Path) -> None:
    Registry(Store(finished_home)).retire("a")
    assert client.get(f"{SLIDE}/thumbnail.jpg").status_code == 422
    assert "is retired" in client.get(SLIDE).json()["error"]
    assert get(client, "/api/slides")["slides"] == []


def test_a_scan_that_is_gone_is_said(client: TestClient, finished_home: Path) -> None:
    (finished_home.parent / "a.tif").unlink()
    assert "a: gone: " in client.get(SLIDE).json()["error"]


@pytest.mark.parametrize(
    ("headers", "why"),
    [({"host": "evil.example"}, "is not served here"), ({"host": "127.0.0.1.evil.example:3100"}, "is not served here")],
)
def test_other_names_are_refused(reading: TestClient, headers: dict[str, str], why: str) -> None:
    answer = reading.get("/api/slides", headers=headers)
    assert answer.status_code == 403
    assert why in answer.json()["error"]


def square(name: str = "Tissue", x: int = 400, y: int = 300, side: int = 500) -> dict[str, Any]:
    ring = [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]
    return {
        "type": "Feature",
        "properties": {"objectType": "annotation", "classification": {"name": name}},
        "geometry": {"type": "Polygon", "coordinates": [ring]},
    }


def put(client: TestClient, features: list[Any], before: str = "none", **headers: str) -> httpx.Response:
    body = {"regions": {"type": "FeatureCollection", "features": features}, "before": before}
    return client.put(
        f"{SLIDE}/regions", content=json.dumps(body), headers={"content-type": "application/json", **headers}
    )


def test_regions_are_kept_and_edit_the_tiles(client: TestClient, finished_home: Path) -> None:
    assert get(client, f"{SLIDE}/regions")["digest"] == "none"
    answer = put(client, [square(), square("Ignore", 400, 300, 200)])
    assert answer.status_code == 200, answer.text
    kept = get(client, f"{SLIDE}/regions")
    assert kept["digest"] == answer.json()["digest"]
    assert [f["properties"]["classification"]["name"] for f in kept["regions"]["features"]] == ["Tissue", "Ignore"]
    assert kept["regions"]["features"][0]["geometry"] == square()["geometry"]
    store = Store(finished_home)
    store_tiles(store, Registry(store).get("a"), TileParameters())
    centers = centers_of(store.read("tile_grids", "a"))
    assert len(centers), "tiles lie in the region"
    assert ((centers > (400, 300)) & (centers < (900, 800))).all()
    assert put(client, [], kept["digest"]).json() == {"digest": "none"}
    assert Registry(Store(finished_home)).get("a").regions_uri is None
    assert len(list((finished_home / "regions" / "a").iterdir())) == 1, "an earlier drawing stays"


def test_a_file_of_the_users_own_stays_as_it_is(client: TestClient, finished_home: Path) -> None:
    own = finished_home.parent / "own.geojson"
    own.write_text(json.dumps({"type": "FeatureCollection", "features": [square("Tumor")]}))
    before = own.read_bytes()
    added = command("add", finished_home.parent / "a.tif", "--home", finished_home, "--regions", own)
    assert added.exit_code == 0, added.stderr
    shown = get(client, f"{SLIDE}/regions")
    assert put(client, [*shown["regions"]["features"], square("Ignore")], shown["digest"]).status_code == 200
    assert own.read_bytes() == before
    assert len(get(client, f"{SLIDE}/regions")["regions"]["features"]) == 2


def test_of_two_who_save_the_second_is_told(client: TestClient) -> None:
    assert put(client, [square()]).status_code == 200
    answer = put(client, [square(x=500)])
    assert answer.status_code == 409
    assert "were changed since this page read them" in answer.json()["error"]


@pytest.mark.parametrize(
    ("features", "why"),
    [
        ([square(x=90_000)], "none of the 1 regions of the drawing touches the scan"),
        ([{"geometry": {"type": "Point", "coordinates": [1, 2]}}], "regions are polygons only"),
        ([{"geometry": {"type": "Polygon", "coordinates": [[[1, 2], [3, 4]]]}}], "is no polygon"),
        ([{"geometry": {"type": "Polygon", "coordinates": [[["a", 2], [3, 4]]]}}], "coordinates that are no numbers"),
    ],
)
def test_a_wrong_region_is_refused(client: TestClient, finished_home: Path, features: list[Any], why: str) -> None:
    answer = put(client, features)
    assert answer.status_code == 422
    assert answer.json()["error"].startswith("a: ")
    assert why in answer.json()["error"]
    assert Registry(Store(finished_home)).get("a").regions_uri is None
    assert list((finished_home / "regions").rglob("*.geojson")) == []


def test_only_its_own_page_saves(client: TestClient) -> None:
    refused = put(client, [square()], origin="http://evil.example")
    assert refused.status_code == 403
    assert "may not do this" in refused.json()["error"]
    assert put(client, [square()], **{"content-type": "text/plain"}).status_code == 415
    assert (
        client.put(
            f"{SLIDE}/regions", content=b"[" * 5_000_000, headers={"content-type": "application/json"}
        ).status_code
        == 413
    )
    assert (
        client.put(f"{SLIDE}/regions", content=b"{}", headers={"content-type": "application/json"}).status_code == 400
    )
    assert put(client, [square()], origin="http://127.0.0.1:3100").status_code == 200


def test_links(finished_home: Path) -> None:
    settings = load_settings(finished_home, viewer_port=4000)
    assert link_to(settings) == "http://127.0.0.1:4000/"
    assert link_to(settings, "a b", gene="HLA-A/B") == "http://127.0.0.1:4000/slides/a%20b?gene=HLA-A%2FB"


def test_the_deep_zoom_library_is_the_pinned_release() -> None:
    import hashlib

    from stpath_assets.viewer.app import STATIC

    [folder] = STATIC.glob("openseadragon-*")
    script = (folder / "openseadragon.min.js").read_bytes()
    assert f'versionStr:"{folder.name.removeprefix("openseadragon-")}"'.encode() in script
    assert hashlib.sha256(script).hexdigest() == "14d587cd3ee7c4861f1a41077ce642029364a21029956ba635bd8fb1202cf9ad"
    assert "Redistribution and use" in (folder / "LICENSE.txt").read_text()


def test_colours_are_matplotlibs() -> None:
    import matplotlib

    from stpath_assets.viewer.app import STATIC

    for name, colours in json.loads((STATIC / "colours.json").read_text()).items():
        known = matplotlib.colormaps["Greys" if name == "greys" else name].resampled(256)
        shown = [tuple(bytes.fromhex(colours[6 * i : 6 * i + 6])) for i in range(256)]
        assert shown == [tuple(round(255 * c) for c in known(i)[:3]) for i in range(256)]
