"""Geometry of the grid: properties over many sizes, against brute force where there is one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stpath_assets.tiles.grid import Grid, box_means, regular_grid, side_in_level0, spot_grid, union_share

LENGTHS = st.integers(1, 5000)
SIDES = st.floats(80, 900)


@given(LENGTHS, LENGTHS, SIDES)
def test_tiles_lie_inside_and_the_grid_covers_all_but_a_strip(width: int, height: int, side: float) -> None:
    grid = regular_grid(width, height, side)
    rows, columns = int(height / side + 1e-9), int(width / side + 1e-9)
    assert len(grid) == rows * columns
    if len(grid) == 0:
        assert width < side or height < side
        return
    assert grid.x_px.min() == grid.y_px.min() == 0
    assert grid.x_px.max() + side <= width * (1 + 1e-12)
    assert grid.y_px.max() + side <= height * (1 + 1e-12)
    assert width - (grid.x_px.max() + side) < side
    assert height - (grid.y_px.max() + side) < side


@given(LENGTHS, LENGTHS, SIDES)
def test_tiles_are_row_major_and_neighbours_share_their_edges(width: int, height: int, side: float) -> None:
    grid = regular_grid(width, height, side)
    np.testing.assert_allclose(grid.x_px, grid.column * side, rtol=0, atol=1e-6)
    np.testing.assert_allclose(grid.y_px, grid.row * side, rtol=0, atol=1e-6)
    order = np.lexsort((grid.column, grid.row))
    np.testing.assert_array_equal(order, np.arange(len(grid)))
    assert len(set(zip(grid.row.tolist(), grid.column.tolist(), strict=True))) == len(grid)


@given(st.integers(1, 40), st.sampled_from([0.1, 0.2499, 0.25, 0.3, 0.499, 0.5, 0.687, 1.0]))
def test_a_scan_made_of_whole_tiles_has_them_all(n: int, mpp: float) -> None:
    side = side_in_level0(224, 0.5, mpp)
    width = round(n * side)
    grid = regular_grid(width, 5000, side) if abs(width - n * side) < 1e-9 else regular_grid(width + 1, 5000, side)
    assert grid.column.max(initial=-1) + 1 == n


@given(st.integers(1, 1000), st.floats(0.05, 5), st.floats(0.05, 5))
def test_a_tile_has_its_physical_size(tile_px: int, tile_mpp: float, slide_mpp: float) -> None:
    assert side_in_level0(tile_px, tile_mpp, slide_mpp) * slide_mpp == pytest.approx(tile_px * tile_mpp, rel=1e-12)


@pytest.mark.parametrize("side", [0.0, -1.0, float("nan")])
def test_a_side_that_is_none(side: float) -> None:
    with pytest.raises(ValueError, match=r"sides and stride must be positive"):
        regular_grid(100, 100, side)


@given(LENGTHS, LENGTHS, SIDES, st.randoms(use_true_random=False))
def test_ids_name_tiles_and_sort_in_table_order(width: int, height: int, side: float, random: object) -> None:
    grid = regular_grid(width, height, side)
    ids = grid.tile_ids()
    assert ids == sorted(set(ids))
    keep = np.array([i for i in range(len(grid)) if random.random() < 0.5], int)  # type: ignore[attr-defined]
    part = grid.take(keep)
    back = Grid.of_tile_ids(part.tile_ids(), part.x_px, part.y_px, side, side)
    np.testing.assert_array_equal(back.row, grid.row[keep])
    np.testing.assert_array_equal(back.column, grid.column[keep])


def test_an_id() -> None:
    assert Grid(np.array([12]), np.array([34]), np.zeros(1), np.zeros(1), 1.0, 1.0).tile_ids() == ["r00012c00034"]


# ---- means over boxes


def mean_by_hand(values: np.ndarray, x: float, y: float, box_width: float, box_height: float) -> float:
    """Every pixel weighted by the area of its overlap with the box, one by one."""
    total = area = 0.0
    for i in range(values.shape[0]):
        for j in range(values.shape[1]):
            overlap = max(0.0, min(y + box_height, i + 1) - max(y, i)) * max(0.0, min(x + box_width, j + 1) - max(x, j))
            total += overlap * values[i, j]
            area += overlap
    return total / area if area > 0 else 0.0


IMAGES = hnp.arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9)))
POSITIONS = st.floats(0, 9, allow_subnormal=False) | st.integers(0, 9).map(float)


@settings(max_examples=150, deadline=None)
@given(
    IMAGES, st.lists(st.tuples(POSITIONS, POSITIONS), min_size=1, max_size=4), st.floats(0.1, 12), st.floats(0.1, 12)
)
def test_box_means_against_brute_force(
    values: np.ndarray, corners: list[tuple[float, float]], box_width: float, box_height: float
) -> None:
    x, y = (np.array(c) for c in zip(*corners, strict=True))
    height, width = values.shape
    # Of a sliver of a box, a mean is the quotient of two roundings.
    seen = [min(a + box_width, width) - a > 1e-3 and min(b + box_height, height) - b > 1e-3 for a, b in corners]
    means = box_means(values, x, y, box_width, box_height)
    assert ((means >= 0) & (means <= 1)).all()
    for i in np.flatnonzero(seen):
        assert means[i] == pytest.approx(mean_by_hand(values, x[i], y[i], box_width, box_height), abs=1e-9)


def test_a_box_outside_the_image_has_no_mean() -> None:
    assert box_means(np.ones((3, 3), bool), np.array([3.0, 5.0]), np.array([0.0, 5.0]), 1.0, 1.0).tolist() == [0.0, 0.0]


@given(IMAGES)
def test_the_whole_image_as_one_box(values: np.ndarray) -> None:
    mean = box_means(values, np.zeros(1), np.zeros(1), *map(float, values.shape[::-1]))[0]
    assert mean == pytest.approx(values.mean())


# ---- overlap, gaps, spots


@settings(deadline=None)
@given(st.integers(1, 2000), st.integers(1, 2000), SIDES, st.floats(0.25, 3))
def test_a_stride_sets_tiles_apart(width: int, height: int, side: float, stride: float) -> None:
    grid = regular_grid(width, height, side, stride)
    if width < side or height < side:
        assert len(grid) == 0
        return
    step = side * stride
    np.testing.assert_allclose(grid.x_px, grid.column * step, rtol=0, atol=1e-6)
    np.testing.assert_allclose(grid.y_px, grid.row * step, rtol=0, atol=1e-6)
    assert grid.x_px.max() + side <= width * (1 + 1e-12)
    assert grid.y_px.max() + side <= height * (1 + 1e-12)
    assert grid.x_px.max() + step + side > width * (1 - 1e-9)
    assert grid.y_px.max() + step + side > height * (1 - 1e-9)
    assert len(grid) == (grid.row.max() + 1) * (grid.column.max() + 1)
    assert grid.tile_ids() == sorted(set(grid.tile_ids()))


@given(st.integers(1, 2000), st.integers(1, 2000), SIDES, SIDES, st.floats(0.25, 3))
def test_where_pixels_are_not_square_each_axis_is_laid_by_itself(
    width: int, height: int, side: float, side_y: float, stride: float
) -> None:
    grid = regular_grid(width, height, side, stride, side_y)
    assert (grid.side_px, grid.side_y_px) == (side, side_y)
    if len(grid) == 0:
        assert width < side or height < side_y
        return
    first_row, first_column = grid.take(grid.row == 0), grid.take(grid.column == 0)
    np.testing.assert_array_equal(
        first_row.x_px, regular_grid(width, max(height, 2000), side, stride).take(first_row.column).x_px
    )
    np.testing.assert_array_equal(
        first_column.y_px,
        regular_grid(max(width, 2000), height, side_y, stride).y_px.reshape(len(first_column), -1)[:, 0],
    )
    assert len(grid) == len(first_row) * len(first_column)


CENTERS = st.lists(st.tuples(st.floats(-200, 2200), st.floats(-200, 1700)), max_size=40)


@given(CENTERS, st.floats(20, 500))
def test_a_tile_about_a_spot_is_centred_on_it_and_inside(centers: list[tuple[float, float]], side: float) -> None:
    xy = np.array(centers).reshape(-1, 2)
    grid, spot = spot_grid(xy, 2000, 1500, side)
    np.testing.assert_allclose(np.stack([grid.x_px, grid.y_px], 1) + side / 2, xy[spot], rtol=0, atol=1e-9)
    half = side / 2
    fits = [i for i, (x, y) in enumerate(centers) if half <= x <= 2000 - half and half <= y <= 1500 - half]
    # At the very edge, the last bit decides.
    clear = [
        i for i in fits if half + 1e-6 < xy[i, 0] < 2000 - half - 1e-6 and half + 1e-6 < xy[i, 1] < 1500 - half - 1e-6
    ]
    assert (
        set(clear)
        <= set(spot.tolist())
        <= {*fits, *np.flatnonzero(np.isclose(xy, half).any(1) | np.isclose(xy, [2000 - half, 1500 - half]).any(1))}
    )
    assert len(set(spot.tolist())) == len(spot)
    order = list(zip(grid.y_px.tolist(), grid.x_px.tolist(), strict=True))
    assert order == sorted(order)
    ids = grid.tile_ids()
    assert ids == sorted(set(ids))
    back = Grid.of_tile_ids(ids, grid.x_px, grid.y_px, side, side)
    assert back.tile_ids() == ids


def test_the_id_of_a_tile_about_a_spot() -> None:
    grid, _ = spot_grid(np.array([[50.0, 50.0]]), 100, 100, 10.0)
    assert grid.tile_ids() == ["s00000"]


@settings(max_examples=60, deadline=None)
@given(CENTERS, st.floats(50, 400))
def test_the_share_under_tiles_counts_overlaps_once(centers: list[tuple[float, float]], side: float) -> None:
    grid, _ = spot_grid(np.array(centers).reshape(-1, 2), 2000, 1500, side)
    truth = np.zeros((1500, 2000), bool)
    for x, y in zip(grid.x_px, grid.y_px, strict=True):
        truth[round(y) : round(y + side), round(x) : round(x + side)] = True
    assert union_share(grid, 2000, 1500) == pytest.approx(truth.mean(), abs=0.002 * max(1, len(grid)))
