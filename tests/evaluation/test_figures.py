"""Pictures of measured and predicted expression: what they show, and what those made with demo weights say."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from stpath_assets.evaluation import scatters
from stpath_assets.evaluation.comparisons import Layout, comparison, said
from stpath_assets.evaluation.overviews import heat_map, page, ranks

SCORE = {"pearson_r": 0.5, "pearson_low": 0.21, "pearson_high": 0.7, "n_spots": 20}


def scatter(demo: bool = False) -> Figure:
    x = np.linspace(0, 3, 20)
    return scatters.scatter(x, x * 0.5, title="C2: EPCAM", score=said(SCORE), demo=demo)


def test_a_score_is_said_with_its_interval_and_spots() -> None:
    assert said(SCORE) == "r = 0.50 (0.21 to 0.70), 20 spots"
    nothing = {"pearson_low": None, "pearson_high": None, "n_spots": 3}
    assert said({"pearson_r": 0.5, **nothing}) == "r = 0.50, 3 spots"
    assert said({"pearson_r": None, **nothing}) == "r undefined, 3 spots"


def test_a_scatter_shows_each_spot_and_the_line_on_which_both_are_equal() -> None:
    axes = scatter().axes[0]
    assert axes.get_title() == "C2: EPCAM\nr = 0.50 (0.21 to 0.70), 20 spots"
    offsets = axes.collections[0].get_offsets()
    np.testing.assert_allclose(offsets[:, 1], offsets[:, 0] * 0.5)
    np.testing.assert_allclose(*axes.lines[0].get_data())


def test_what_demo_weights_made_says_so() -> None:
    assert "demo weights, not biology" in scatter(demo=True).axes[0].get_title()
    assert "demo" not in scatter(demo=False).axes[0].get_title()


@pytest.fixture
def layout() -> Layout:
    tiles = np.stack(np.meshgrid(np.arange(4), np.arange(3)), axis=-1).reshape(-1, 2) * 200.0 + 1000
    return Layout(tiles, (200.0, 200.0), tiles[:5] + 30, (0.5, 0.5))


def test_measured_and_predicted_have_one_colour_scale_and_one_place(layout: Layout) -> None:
    predicted, measured = np.linspace(0, 2, 12), np.linspace(1, 6, 5)
    figure = comparison(
        layout,
        {"by A": predicted, "by B": predicted + 1},
        measured,
        title="t",
        scan=(np.zeros((20, 30, 3), np.uint8), (3000, 2000)),
    )
    scan, of_spots, of_tiles, of_other = figure.axes[:4]
    assert [axes.get_title() for axes in (scan, of_spots, of_tiles, of_other)] == ["scan", "measured", "by A", "by B"]
    (circles,), (squares,), (others,) = of_spots.collections, of_tiles.collections, of_other.collections
    np.testing.assert_allclose(others.get_array(), predicted + 1)
    assert circles.get_clim() == squares.get_clim() == others.get_clim() == (0.0, 6.0)
    np.testing.assert_allclose(circles.get_offsets(), layout.spots_px * 0.0005)
    np.testing.assert_allclose(circles.get_array(), measured)
    np.testing.assert_allclose(squares.get_array(), predicted)
    # Tissue with a margin, not the whole glass: centres from 0.5 to 0.8 mm, a tile is 0.1 mm.
    for axes in (scan, of_spots, of_tiles):
        assert axes.get_xlim() == pytest.approx((0.35, 0.965))
        assert axes.get_ylim() == pytest.approx((0.85, 0.35))


def test_without_spots_or_scan_their_panels_are_left_out(layout: Layout) -> None:
    figure = comparison(layout, {"predicted": np.arange(12.0)}, None, title="t")
    predicted, bar = figure.axes
    assert predicted.get_title() == "predicted"
    assert bar.get_label() == "<colorbar>"


def row(r: float | None, **more: float | None) -> dict[str, float | None]:
    reach = (
        {"pearson_low": None, "pearson_high": None} if r is None else {"pearson_low": r - 0.1, "pearson_high": r + 0.1}
    )
    return {"pearson_r": r, **reach, "r_depth": 0.2, "noise_ceiling": None, "n_spots": 9, **more}


def test_genes_are_ranked_by_the_first_model_with_their_intervals() -> None:
    first = {"A": row(0.1), "B": row(0.6), "C": row(None), "D": row(0.3)}
    figure = ranks({"stpath": first, "ridge:r": {"A": row(0.5), "E": row(0.9)}}, title="s")
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["B", "D", "A"], "C has no r"
    drawn = {c.get_label(): c for c in axes.containers}
    assert set(drawn) == {"stpath", "ridge:r"}
    np.testing.assert_allclose(drawn["stpath"].lines[0].get_xdata(), [0.6, 0.3, 0.1])
    np.testing.assert_allclose(drawn["ridge:r"].lines[0].get_xdata(), [0.5])
    segments = drawn["stpath"].lines[2][0].get_segments()
    np.testing.assert_allclose([s[:, 0] for s in segments], [[0.5, 0.7], [0.2, 0.4], [0.0, 0.2]])


def test_of_many_genes_the_first_and_last_are_shown() -> None:
    scores = {f"G{i:03d}": row(1 - i / 100) for i in range(90)}
    axes = ranks({"stpath": scores}, title="s").axes[0]
    shown = [label.get_text() for label in axes.get_yticklabels()]
    assert shown == [*[f"G{i:03d}" for i in range(20)], *[f"G{i:03d}" for i in range(70, 90)]]
    assert "first 20 and last 20 of 90 genes" in axes.get_title()


def test_all_genes_are_on_one_page_each_pair_on_one_scale(layout: Layout) -> None:
    both = {f"G{i}": (np.linspace(0, i + 1, 5), np.linspace(1, 2, 12)) for i in range(8)}
    figure = page(layout, both, title="s")
    shown = [axes for axes in figure.axes if axes.collections]
    assert len(shown) == 16
    assert [axes.get_title() for axes in shown if axes.get_title()] == list(both)
    above, below = shown[5], shown[11]  # six across: the last gene of the first row
    assert above.get_title() == "G5"
    assert above.collections[0].get_clim() == below.collections[0].get_clim() == (0.0, 6.0)


def test_the_heat_map_has_slides_and_genes_by_their_mean() -> None:
    found = [("s1", "A", 0.1), ("s1", "B", 0.9), ("s2", "B", 0.7), ("s2", "A", 0.8)]
    axes = heat_map(found, title="ridge:r").axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["B", "A"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["s2", "s1"]
    np.testing.assert_allclose(axes.images[0].get_array(), [[0.7, 0.8], [0.9, 0.1]])
    assert "demo weights, not biology" in heat_map(found, title="stpath-demo: r").axes[0].get_title()
