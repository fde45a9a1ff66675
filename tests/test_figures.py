"""Figures: what they say, where they go, and that the same figure is the same file."""

import base64
import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from matplotlib.figure import Figure
from PIL import Image

from stpath_assets import figures
from tests.conftest import tissue_image

CENTERS = np.array([[500.0, 500.0], [724.0, 500.0], [500.0, 724.0]])


def expression_map(demo: bool = False, values: tuple[float, ...] = (0.0, 1.0, 2.5)) -> Figure:
    thumbnail = tissue_image(120, 160)
    return figures.expression_map(
        thumbnail,
        (1600, 1200),
        CENTERS,
        (224.0, 224.0),
        np.array(values, np.float32),
        title="C2: EPCAM",
        mpp_xy=(0.5, 0.5),
        demo=demo,
    )


def scatter(demo: bool = False, r: float | None = 0.5) -> Figure:
    x = np.linspace(0, 3, 20)
    return figures.scatter(x, x * 0.5, title="C2: EPCAM", pearson_r=r, demo=demo)


def texts(figure: Figure) -> str:
    return "\n".join([figure.get_suptitle(), *(a.get_title() for a in figure.axes)])


def decoded(uri: str) -> Image.Image:
    prefix = "data:image/jpeg;base64,"
    assert uri.startswith(prefix)
    content = base64.b64decode(uri.removeprefix(prefix))
    assert len(content) <= 50_000
    return Image.open(io.BytesIO(content))


# ---- which genes, and where


def test_a_small_panel_has_a_figure_for_every_gene() -> None:
    panel = [f"G{i}" for i in range(12)]
    assert figures.chosen(panel, ["G3"]) == panel
    assert figures.chosen([], ["G3"]) == []


def test_a_large_panel_has_those_that_were_asked_for() -> None:
    panel = [f"G{i}" for i in range(200)]
    assert figures.chosen(panel, ["G150", "nope", "G3"]) == ["G150", "G3"]
    assert figures.chosen(panel, panel[50:100]) == panel[50:62]
    assert figures.chosen(panel, ["nope"]) == panel[:12], "better any than none"


@pytest.mark.parametrize(
    ("gene", "name"),
    [("EPCAM", "map_EPCAM.png"), ("HLA-DRB1", "map_HLA-DRB1.png"), ("RP11-34P13.7", "map_RP11-34P13.7.png")],
)
def test_where_a_figure_belongs(tmp_path: Path, gene: str, name: str) -> None:
    assert figures.path_of(tmp_path, "C2", "map", gene) == tmp_path / "figures" / "C2" / name


@pytest.mark.parametrize("gene", ["../../x", "a/b", "a\0b", "a b", "µ", "a:b"])
def test_no_gene_leads_out_of_its_slides_folder(tmp_path: Path, gene: str) -> None:
    path = figures.path_of(tmp_path, "C2", "map", gene)
    assert path.resolve().parent == tmp_path.resolve() / "figures" / "C2"
    assert path.name.isascii()


# ---- what is drawn


def test_a_map_shows_each_tile_where_it_is_in_mm() -> None:
    figure = expression_map()
    left, right = figure.axes[:2]
    (squares,) = right.collections
    corners = np.stack([p.vertices[:4] for p in squares.get_paths()])
    np.testing.assert_allclose(corners.mean(1), CENTERS * 0.0005)
    np.testing.assert_allclose(np.ptp(corners, axis=1), 0.112)
    assert squares.get_array().tolist() == [0.0, 1.0, 2.5]
    assert squares.get_cmap().name == "magma"
    assert left.images[0].get_extent() == pytest.approx([0, 0.8, 0.6, 0])
    x, y = right.get_xlim(), right.get_ylim()
    assert x[0] <= corners[..., 0].min() < corners[..., 0].max() <= x[1] <= 0.8
    assert 0.6 >= y[0] >= corners[..., 1].max() > corners[..., 1].min() >= y[1], "y runs down, as on the scan"
    assert left.get_xlabel() == "mm"
    assert "C2: EPCAM" in texts(figure)


def test_a_map_of_one_tile_and_of_one_value(tmp_path: Path) -> None:
    one = figures.expression_map(
        tissue_image(60, 80),
        (800, 600),
        CENTERS[:1],
        (224.0, 224.0),
        np.zeros(1, np.float32),
        title="t",
        mpp_xy=(0.5, 0.5),
        demo=False,
    )
    assert figures.save(one, tmp_path / "one.png", "x").stat().st_size > 1000
    assert figures.save(expression_map(values=(1.0, 1.0, 1.0)), tmp_path / "flat.png", "x").stat().st_size > 1000


def test_a_scatter_says_r_and_n() -> None:
    assert "C2: EPCAM: r = 0.500, n = 20" in texts(scatter())
    assert "r undefined" in texts(scatter(r=None))
    offsets = scatter().axes[0].collections[0].get_offsets()
    np.testing.assert_allclose(offsets[:, 1], offsets[:, 0] * 0.5)


def test_what_demo_weights_made_says_so() -> None:
    for draw in (expression_map, scatter):
        assert "demo weights, not biology" in texts(draw(demo=True))
        assert "demo" not in texts(draw(demo=False))


# ---- files


def test_the_same_figure_is_the_same_file(tmp_path: Path) -> None:
    for draw in (expression_map, scatter):
        one = figures.save(draw(), tmp_path / "one" / "a.png", "x").read_bytes()
        assert figures.save(draw(), tmp_path / "two" / "a.png", "x").read_bytes() == one
        assert figures.save(draw(demo=True), tmp_path / "two" / "a.png", "x").read_bytes() != one
        assert b"matplotlib" not in one.lower()


def test_a_figure_knows_what_it_was_made_from(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    assert not figures.is_current(path, "digest")
    figures.save(scatter(), path, "digest")
    assert figures.is_current(path, "digest")
    assert not figures.is_current(path, "another")
    whole = path.read_bytes()
    for keep in (0, 4, 100, len(whole) // 2, len(whole) - 20):
        path.write_bytes(whole[:keep])
        assert not figures.is_current(path, "digest"), keep


def test_a_picture_for_a_metadata_panel_is_small(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1000, 2000, 3), np.uint8)
    picture = decoded(figures.small_jpeg(noise, 640))
    assert picture.size == (640, 320)
    assert decoded(figures.small_jpeg(tissue_image(100, 80))).size == (80, 100), "nothing is enlarged"
    figures.save(expression_map(), tmp_path / "a.png", "x")
    assert max(decoded(figures.small_jpeg_of(tmp_path / "a.png", 300)).size) == 300


def test_tiles_are_drawn_where_they_are_in_the_colour_of_what_became_of_them() -> None:
    image: npt.NDArray[np.uint8] = np.full((120, 160, 3), 255, np.uint8)
    before = image.copy()
    mask = np.zeros((120, 160), bool)
    mask[60:110, 80:150] = True
    corners = {"kept": np.array([[400.0, 200.0]]), "pen": np.array([[0.0, 0.0]])}
    drawn = figures.tile_overlay(image, (1600, 1200), mask, corners, (224.0, 224.0), longest_px=320)
    np.testing.assert_array_equal(image, before)
    assert drawn.shape[1] == 320
    assert drawn.shape[0] > 240, "a legend below"
    changed = (drawn[:240] != 255).any(2)
    kept, pen, tissue = changed[30:100, 60:140], drawn[10:40, 10:40], drawn[115:225, 155:305]
    rows, columns = np.nonzero(kept)
    assert (rows.min() + 30, columns.min() + 60) == (40, 80)
    assert (rows.max() + 30, columns.max() + 60) in ((84, 124), (85, 125))
    assert not changed[45:80, 85:120].any(), "an outline, not a filled square"
    assert (pen[..., 0].astype(int) - pen[..., 2] > 50).all(), "filled in orange"
    outline = (tissue < 60).all(2)
    assert outline.any()
    assert not outline[20:-20, 20:-20].any()
