"""Maps of expression: what they show, for which genes, and what those made with demo weights say."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from stpath_assets.prediction import maps
from stpath_assets.storage import pictures
from tests.conftest import tissue_image

CENTERS = np.array([[500.0, 500.0], [724.0, 500.0], [500.0, 724.0]])


def expression_map(demo: bool = False, values: tuple[float, ...] = (0.0, 1.0, 2.5)) -> Figure:
    thumbnail = tissue_image(120, 160)
    return maps.expression_map(
        thumbnail,
        (1600, 1200),
        CENTERS,
        (224.0, 224.0),
        np.array(values, np.float32),
        title="C2: EPCAM",
        mpp_xy=(0.5, 0.5),
        demo=demo,
    )


def texts(figure: Figure) -> str:
    return "\n".join([figure.get_suptitle(), *(a.get_title() for a in figure.axes)])


def test_a_small_panel_has_a_figure_for_every_gene() -> None:
    panel = [f"G{i}" for i in range(12)]
    assert maps.pick_genes(panel, ["G3"]) == panel
    assert maps.pick_genes([], ["G3"]) == []


def test_a_large_panel_has_those_that_were_asked_for() -> None:
    panel = [f"G{i}" for i in range(200)]
    assert maps.pick_genes(panel, ["G150", "nope", "G3"]) == ["G150", "G3"]
    assert maps.pick_genes(panel, panel[50:100]) == panel[50:62]
    assert maps.pick_genes(panel, ["nope"]) == panel[:12], "better any than none"


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
    one = maps.expression_map(
        tissue_image(60, 80),
        (800, 600),
        CENTERS[:1],
        (224.0, 224.0),
        np.zeros(1, np.float32),
        title="t",
        mpp_xy=(0.5, 0.5),
        demo=False,
    )
    assert pictures.save(one, tmp_path / "one.png", "x").stat().st_size > 1000
    assert pictures.save(expression_map(values=(1.0, 1.0, 1.0)), tmp_path / "flat.png", "x").stat().st_size > 1000


def test_what_demo_weights_made_says_so() -> None:
    assert "demo weights, not biology" in texts(expression_map(demo=True))
    assert "demo" not in texts(expression_map(demo=False))
