"""A slide's genes over its tiles: what numpy says, and Moran's I by its definition."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stpath_assets.prediction.summaries import gini_of, morans_i, neighbours, summary_rows


def by_definition(values: np.ndarray, near: np.ndarray) -> float:
    """Moran's I as a double sum."""
    z, n = values - values.mean(), len(values)
    top = sum(near[i, j] * z[i] * z[j] for i in range(n) for j in range(n))
    return n / near.sum() * top / (z**2).sum()


@given(st.integers(2, 5), st.integers(2, 5), st.integers(0, 9))
def test_morans_i_is_its_definition(width: int, height: int, seed: int) -> None:
    xy = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).reshape(-1, 2) * 224.0
    values, near = np.random.default_rng(seed).standard_normal((len(xy), 3)), neighbours(xy)
    expected = [by_definition(values[:, g], near.toarray()) for g in range(3)]
    np.testing.assert_allclose(morans_i(values, near), expected, atol=1e-12)


def test_the_eight_tiles_around_a_tile_are_its_neighbours() -> None:
    xy = np.stack(np.meshgrid(np.arange(4), np.arange(4)), axis=-1).reshape(-1, 2) * 300.0
    assert sorted(neighbours(xy).sum(axis=1).A1.astype(int).tolist()) == [3] * 4 + [5] * 8 + [8] * 4


def test_a_gradient_is_smooth_noise_is_not_and_a_constant_is_undefined() -> None:
    xy = np.stack(np.meshgrid(np.arange(20), np.arange(20)), axis=-1).reshape(-1, 2) * 224.0
    noise = np.random.default_rng(0).standard_normal(len(xy))
    found = morans_i(np.column_stack([xy[:, 0], noise, np.ones(len(xy))]), neighbours(xy))
    assert found[0] > 0.9
    assert abs(found[1]) < 0.1
    assert np.isnan(found[2])


def test_one_tile_has_no_neighbours() -> None:
    near = neighbours(np.zeros((1, 2)))
    assert near.shape == (1, 1)
    assert np.isnan(morans_i(np.ones((1, 2)), near)).all()


@given(st.integers(1, 90), st.integers(0, 9))
def test_summaries_are_what_numpy_says(n: int, seed: int) -> None:
    values = np.random.default_rng(seed).normal(0.5, 1, (n, 3)).astype(np.float32)
    xy = np.arange(n)[:, None] * np.array([[224.0, 0.0]])
    found = summary_rows("a", "stpath", ["A", "B", "C"], values, neighbours(xy)).to_pydict()
    exact = values.astype(np.float64)
    np.testing.assert_allclose(found["quantiles"], np.quantile(exact, np.arange(41) / 40, axis=0).T, atol=1e-6)
    for name, share in (("p05", 0.05), ("median", 0.5), ("p95", 0.95)):
        np.testing.assert_allclose(found[name], np.quantile(exact, share, axis=0), atol=1e-9)
    np.testing.assert_allclose(found["mean"], exact.mean(axis=0))
    np.testing.assert_allclose(found["sd"], exact.std(axis=0, ddof=1) if n > 1 else 0, atol=1e-12)


def test_gini_is_half_the_mean_difference_of_two_tiles_over_their_mean() -> None:
    counts = np.sort(np.random.default_rng(1).gamma(0.5, 2, 40))
    expected = np.abs(counts[:, None] - counts[None, :]).mean() / 2 / counts.mean()
    found = gini_of(np.log1p(np.stack([counts, np.full(40, 3.0), np.zeros(40)])))
    np.testing.assert_allclose(found[:2], [expected, 0], atol=1e-12)
    assert np.isnan(found[2])
    np.testing.assert_allclose(gini_of(np.array([[-0.5, 0.0, np.log(2)]])), 2 / 3)
