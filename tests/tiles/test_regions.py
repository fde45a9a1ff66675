"""Regions drawn by a person: what they cover, what they do to the mask, and files that are none."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stpath_assets.errors import TissueError
from stpath_assets.tiles.regions import Regions, read_regions

WIDTH, HEIGHT = 3200, 2400
SHAPE = (150, 200)  # 16 level-0 pixels each


def square(x0: float, y0: float, x1: float, y1: float) -> list[list[float]]:
    return [[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]


def feature(rings: Any, name: str | None = None, kind: str = "Polygon") -> dict[str, Any]:
    properties = {"objectType": "annotation", **({"classification": {"name": name}} if name else {})}
    return {"type": "Feature", "geometry": {"type": kind, "coordinates": rings}, "properties": properties}


def regions(tmp_path: Path, *features: dict[str, Any]) -> Regions:
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": list(features)}))
    return read_regions(path)


def applied(r: Regions, mask: np.ndarray | None = None) -> np.ndarray:
    return r.apply(np.ones(SHAPE, bool) if mask is None else mask, WIDTH, HEIGHT)


def boxed(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    """What a box of level-0 pixels, multiples of 16, covers of the mask."""
    out = np.zeros(SHAPE, bool)
    out[y0 // 16 : y1 // 16, x0 // 16 : x1 // 16] = True
    return out


@settings(deadline=None)
@given(st.integers(0, 190), st.integers(0, 140), st.integers(2, 60), st.integers(2, 60))
def test_a_rectangle_covers_exactly_its_pixels(
    tmp_path_factory: pytest.TempPathFactory, x: int, y: int, w: int, h: int
) -> None:
    """Edges half a pixel off pixel centres: there is no doubt which are inside. Beyond the scan it is cut."""
    box = (16 * x, 16 * y, 16 * (x + w), 16 * (y + h))
    found = applied(regions(tmp_path_factory.mktemp("r"), feature([square(*box)])))
    np.testing.assert_array_equal(found, boxed(*box))


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(0, 2 * np.pi), min_size=3, max_size=12, unique=True), st.floats(200, 1100))
def test_a_polygon_covers_its_area(
    tmp_path_factory: pytest.TempPathFactory, angles: list[float], radius: float
) -> None:
    ring = [[1600 + radius * np.cos(a), 1200 + radius * np.sin(a)] for a in sorted(angles)]
    x, y = np.array(ring).T
    area = abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
    outline = np.hypot(np.diff(x, append=x[0]), np.diff(y, append=y[0])).sum()
    try:
        covered = applied(regions(tmp_path_factory.mktemp("r"), feature([ring]))).sum() * 256
    except TissueError:
        covered = 0  # a sliver between pixel centres
    assert abs(covered - area) <= outline * 16 + 256


def test_holes_and_multipolygons(tmp_path: Path) -> None:
    holed = [square(160, 160, 1600, 1600), square(480, 480, 800, 800)]
    two = feature([holed, [square(1920, 160, 2080, 320)]], kind="MultiPolygon")
    expected = (boxed(160, 160, 1600, 1600) & ~boxed(480, 480, 800, 800)) | boxed(1920, 160, 2080, 320)
    np.testing.assert_array_equal(applied(regions(tmp_path, two)), expected)


def test_what_the_classes_do(tmp_path: Path) -> None:
    mask = boxed(320, 320, 1600, 1600)
    a, b = (160, 160, 960, 960), (640, 640, 1280, 1280)
    any_, tumor = feature([square(*a)]), feature([square(*b)], "Tumor")
    tissue, ignore = feature([square(*a)], "Tissue"), feature([square(*b)], "Ignore*")
    np.testing.assert_array_equal(applied(regions(tmp_path, any_), mask), mask & boxed(*a))
    np.testing.assert_array_equal(applied(regions(tmp_path, any_, tumor), mask), mask & (boxed(*a) | boxed(*b)))
    np.testing.assert_array_equal(applied(regions(tmp_path, tissue), mask), boxed(*a))
    np.testing.assert_array_equal(applied(regions(tmp_path, ignore), mask), mask & ~boxed(*b))
    np.testing.assert_array_equal(applied(regions(tmp_path, tissue, ignore), mask), boxed(*a) & ~boxed(*b))
    np.testing.assert_array_equal(applied(regions(tmp_path, tissue, tumor), mask), boxed(*a) & boxed(*b))
    assert (mask == boxed(320, 320, 1600, 1600)).all(), "the mask that was given is not changed"


def test_every_form_that_qupath_writes(tmp_path: Path) -> None:
    f = feature([square(160, 160, 960, 960)], "Tissue")
    old = {**f, "properties": {"classification": "Tissue"}}
    forms = [f, [f], {"type": "FeatureCollection", "features": [f]}, [old]]
    for i, form in enumerate(forms):
        path = tmp_path / f"{i}.geojson"
        path.write_text(json.dumps(form))
        np.testing.assert_array_equal(applied(read_regions(path), np.zeros(SHAPE, bool)), boxed(160, 160, 960, 960))
    (tmp_path / "bare.geojson").write_text(json.dumps(f["geometry"]))
    assert read_regions(tmp_path / "bare.geojson").polygons[0].name == ""


def test_the_hash_is_of_the_content(tmp_path: Path) -> None:
    one = regions(tmp_path, feature([square(0, 0, 160, 160)]))
    (tmp_path / "b.geojson").write_bytes((tmp_path / "a.geojson").read_bytes())
    assert read_regions(tmp_path / "b.geojson").sha256 == one.sha256
    assert regions(tmp_path, feature([square(0, 0, 160, 176)])).sha256 != one.sha256


def test_regions_beside_the_scan_are_an_error(tmp_path: Path) -> None:
    away = regions(tmp_path, feature([square(9000, 9000, 9900, 9900)]))
    with pytest.raises(TissueError, match=r"^S1: none of the 1 regions of a\.geojson touches the scan"):
        away.apply(np.ones(SHAPE, bool), WIDTH, HEIGHT, "S1")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "is not GeoJSON"),
        ("{", "is not GeoJSON"),
        ("3", "is not GeoJSON"),
        ('{"type": "FeatureCollection", "features": []}', "holds no region"),
        ('{"type": "FeatureCollection", "features": [{}]}', "feature 1 is a thing without a type"),
        (json.dumps(feature([0, 1], kind="Point")), "feature 1 is a Point"),
        (json.dumps(feature([[[0, 0], [1, 1]]])), "is no polygon"),
        (json.dumps(feature([[["a", 0], [1, 1], [2, 2]]])), "coordinates that are no numbers"),
        (json.dumps(feature([[[float("nan"), 0], [1, 1], [2, 2]]])), "is no polygon"),
        (json.dumps(feature([[1, 2, 3]])), "coordinates that are no numbers"),
        (json.dumps(feature([], kind="MultiPolygon")), "holds no region"),
    ],
)
def test_a_file_that_holds_none_is_named_in_one_line(tmp_path: Path, content: str, says: str) -> None:
    path = tmp_path / "bad.geojson"
    path.write_text(content)
    with pytest.raises(TissueError, match=says) as error:
        read_regions(path)
    assert str(error.value).startswith("bad.geojson: ")
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TissueError, match=r"nothere\.geojson: regions cannot be read"):
        read_regions(tmp_path / "nothere.geojson")
