"""A scan whose pixels are not square, as far as a user takes it: the same section gives the same results."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stpath_assets.demo.phantom import draw_phantom
from stpath_assets.demo.spots import SimulatedSpots, simulate, write_spots
from stpath_assets.features import read_features
from stpath_assets.storage import Store
from stpath_assets.tiles import centers_of
from tests.conftest import write_tiff
from tests.roots import blank, command

SCALES = {"square": (0.5, 0.5), "flat": (0.5, 1.0), "narrow": (1.0, 0.5), "fine": (0.25, 0.5)}
"""µm per pixel along x and y of four scans of one section."""


GENES = "EPCAM,COL1A1,CD3E"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root that has run one phantom, scanned with pixels of four shapes and measured on the same spots."""
    folder = tmp_path_factory.mktemp("scans")
    phantom = draw_phantom(2, size_um=1600)
    spots = simulate(phantom, 2)
    for name, (x, y) in SCALES.items():
        columns, rows = max(1, round(x / 0.5)), max(1, round(y / 0.5))
        h, w = phantom.image.shape[:2]
        image = phantom.image.reshape(h // rows, rows, w // columns, columns, 3).mean((1, 3)).round().astype(np.uint8)
        image = np.repeat(image, 2, 1) if x == 0.25 else image
        scan = write_tiff(folder / f"{name}.tif", image, (x, y))
        placed = SimulatedSpots(spots.array_xy, spots.xy_px * (0.5 / x, 0.5 / y), spots.counts)
        counts = write_spots(placed, folder, name)
        added = command(
            "add", scan, "--organ", "breast", "--tech", "visium", "--spots", counts, "--home", folder / "home"
        )
        assert added.exit_code == 0, added.stderr
        assert ("pixels are not square" in added.stderr) == (x != y)
    with pytest.MonkeyPatch.context() as patch:
        blank(patch)  # the picture that is looked at here, tiles.png, is none of them
        ran = command("run", "--encoder", "demo", "--genes", GENES, "--home", folder / "home")
    assert ran.exit_code == 0, ran.stderr
    return folder / "home"


@pytest.mark.parametrize("name", ["flat", "narrow", "fine"])
def test_tiles_lie_on_the_same_tissue(home: Path, name: str) -> None:
    store = Store(home)
    square, other = (store.read("tile_grids", s) for s in ("square", name))
    x, y = SCALES[name]
    assert (set(other["side_px"].to_pylist()), set(other["side_y_px"].to_pylist())) == ({112 / x}, {112 / y})
    um = dict(zip(other["tile_id"].to_pylist(), centers_of(other) * (x, y), strict=True))
    at = dict(zip(square["tile_id"].to_pylist(), centers_of(square) * 0.5, strict=True))
    both = sorted(set(um) & set(at))
    assert len(both) >= 0.97 * max(len(um), len(at))
    np.testing.assert_allclose([um[i] for i in both], [at[i] for i in both], atol=1e-6)
    fractions = [
        dict(zip(t["tile_id"].to_pylist(), t["tissue_fraction"].to_pylist(), strict=True)) for t in (square, other)
    ]
    assert np.abs([fractions[0][i] - fractions[1][i] for i in both]).mean() < 0.01


def test_pixels_drawn_twice_along_x_change_nothing_but_the_last_bits(home: Path) -> None:
    """`fine` is `square` with every pixel twice: by area, its tiles are the same pixels."""
    square, fine = (read_features(Store(home), s) for s in ("square", "fine"))
    assert fine.tile_ids == square.tile_ids
    np.testing.assert_allclose(fine.matrix, square.matrix, atol=1e-6)


def test_spots_meet_the_same_tiles_and_scores_agree(home: Path, sa) -> None:
    query = "select slide_id, max(n_spots) n, avg(pearson_r) r from evaluation_metrics group by 1"
    rows = json.loads(sa("sql", query, "--home", home, "--format", "json").stdout)
    found = {row["slide_id"]: (row["n"], row["r"]) for row in rows}
    n, r = found["square"]
    assert n > 100
    assert found["fine"] == pytest.approx((n, r), abs=1e-3)
    for name in ("flat", "narrow"):
        assert found[name][0] == pytest.approx(n, rel=0.03)


def test_maps_have_the_shape_of_the_section(home: Path) -> None:
    sizes = {}
    for name in SCALES:
        with Image.open(home / "figures" / name / "tiles.png") as picture:
            sizes[name] = picture.size
    assert len({(w, h) for w, h in sizes.values()}) == 1, sizes
