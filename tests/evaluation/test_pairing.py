"""Pairing: by hand, against brute force, and its invariants."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stpath_assets.evaluation import pair

# Quarters of a pixel make exact ties frequent, and their squares exact.
points = (
    st.integers(1, 30).flatmap(lambda n: arrays(np.int64, (n, 2), elements=st.integers(-40, 40))).map(lambda a: a / 4)
)
sides = st.integers(2, 80).map(lambda side: side / 4)


def test_pair_by_hand():
    tiles = np.array([[50, 50], [150, 50], [50, 150]])
    spots = np.array([[50, 50], [149, 149], [90, 60], [100, 50], [100, 100], [0, 0], [-21, 50], [-20.5, 50]])
    spot_index, tile_index = pair(spots, tiles, 100)
    # (149, 149) has no tile; (100, 50) and (100, 100) lie between tiles; (0, 0) is a corner; 70.71 px is the bound.
    assert spot_index.tolist() == [0, 2, 3, 4, 5, 7]
    assert tile_index.tolist() == [0, 0, 0, 0, 0, 0]


def test_pair_with_nothing_to_pair():
    for spots, tiles in ((np.empty((0, 2)), np.zeros((3, 2))), (np.zeros((3, 2)), np.empty((0, 2)))):
        assert [len(index) for index in pair(spots, tiles, 10)] == [0, 0]


@given(points, points, sides)
def test_pair_is_the_brute_force_nearest_neighbour(spots, tiles, side):
    squared = ((spots[:, None] - tiles[None]) ** 2).sum(axis=2)
    nearest = squared.argmin(axis=1)  # the first of equals, as `pair` promises
    near = squared.min(axis=1) <= side**2 / 2
    spot_index, tile_index = pair(spots, tiles, side)
    assert spot_index.tolist() == np.flatnonzero(near).tolist()
    assert tile_index.tolist() == nearest[near].tolist()


@given(points, points, sides)
def test_no_spot_inside_a_tile_is_lost(spots, tiles, side):
    inside = (np.abs(spots[:, None] - tiles[None]) <= side / 2).all(axis=2).any(axis=1)
    assert set(np.flatnonzero(inside)) <= set(pair(spots, tiles, side)[0])
