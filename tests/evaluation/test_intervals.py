"""Intervals: Fisher's against scipy, the effective number against its formula in matrices, and how often they hold the truth."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from stpath_assets.evaluation import intervals
from stpath_assets.evaluation.intervals import EDGES, Spacing, fisher, pitch_of
from stpath_assets.evaluation.scores import correlate

seeds = st.integers(0, 2**32 - 1)


def grid(side: int, pitch_um: float = 200.0) -> npt.NDArray[np.float64]:
    """The places of side x side spots, µm."""
    return np.stack(np.meshgrid(np.arange(side), np.arange(side)), axis=-1).reshape(-1, 2) * pitch_um


def fields(xy_um: npt.NDArray, range_um: float, rho: float, g: int, seed: int) -> tuple[npt.NDArray, npt.NDArray]:
    """Pairs of Gaussian fields, (K, G) each, of correlation `rho`, with autocorrelation exp(-distance / range)."""
    rng, k = np.random.default_rng(seed), len(xy_um)
    distance = np.linalg.norm(xy_um[:, None] - xy_um, axis=2)
    root = np.linalg.cholesky((np.exp(-distance / range_um) if range_um else np.eye(k)) + 1e-9 * np.eye(k))
    a, b = root @ rng.standard_normal((k, g)), root @ rng.standard_normal((k, g))
    return a, rho * a + np.sqrt(1 - rho**2) * b


def test_fishers_interval_by_hand() -> None:
    # atanh 0.6 = ln 2 = 0.693147, and with n - 3 = 1 the reach is 1.959964.
    low, high = fisher(0.6, 4)
    assert (low, high) == pytest.approx((np.tanh(0.693147 - 1.959964), np.tanh(0.693147 + 1.959964)), abs=1e-6)
    for n in (3, 2, 0, np.nan):
        assert np.isnan(fisher(0.6, n)).all()


@given(seeds)
def test_fishers_interval_is_that_of_scipy(seed: int) -> None:
    x, y = np.random.default_rng(seed).normal(size=(2, 12))
    found = stats.pearsonr(x, y)
    low, high = found.confidence_interval(0.95)
    assert fisher(found.statistic, 12) == pytest.approx((low, high), abs=1e-9)


@settings(max_examples=25, deadline=None)
@given(seeds, st.integers(5, 40))
def test_the_effective_number_is_dutilleuls(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    xy, x, y = rng.uniform(0, 2000, (k, 2)), rng.normal(size=(k, 2)), rng.normal(size=(k, 2))
    edges = np.array(EDGES) * pitch_of(xy)
    distance = np.linalg.norm(xy[:, None] - xy, axis=2)
    label = np.searchsorted(edges, distance) + 1
    np.fill_diagonal(label, 0)
    centre = np.eye(k) - 1 / k
    for i, n in enumerate(Spacing.of(xy).effective_n(x, y)):
        covariances = []
        for values in (x[:, i], y[:, i]):
            z = (values - values.mean()) / values.std()
            products = np.outer(z, z)
            covariance = np.zeros((k, k))
            for c in np.unique(label):
                covariance[label == c] = products[label == c].mean() if c else 1.0
            covariances.append(centre @ covariance)
        of_x, of_y = covariances
        variance = np.trace(of_x @ of_y) / (np.trace(of_x) * np.trace(of_y))
        expected = min(1 + 1 / variance, k) if variance > 0 else k
        assert n == pytest.approx(expected, rel=1e-4)


def test_independent_spots_count_in_full_and_alike_ones_for_fewer() -> None:
    xy = grid(16)
    spacing, numbers = Spacing.of(xy), []
    for range_um in (0, 200, 400, 800):
        numbers.append(float(np.median(spacing.effective_n(*fields(xy, range_um, 0.5, 60, 1)))))
    assert numbers[0] > 0.95 * len(xy)
    assert (np.diff(numbers) < 0).all()
    assert numbers[-1] < 0.2 * len(xy)


def test_likeness_of_one_side_alone_costs_nothing() -> None:
    xy = grid(16)
    alike, _ = fields(xy, 800, 0.0, 60, 2)
    independent, _ = fields(xy, 0, 0.0, 60, 3)
    assert np.median(Spacing.of(xy).effective_n(alike, independent)) > 0.9 * len(xy)


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("range_um", [0, 200, 400, 800])
def test_intervals_hold_the_truth_at_their_nominal_rate(range_um: float, rho: float) -> None:
    xy = grid(14)
    x, y = fields(xy, range_um, rho, 600, seed=int(range_um + 10 * rho))
    low, high = fisher(correlate(x, y), Spacing.of(xy).effective_n(x, y))
    # 95 %, give or take three standard deviations of 600 tries and what an estimated likeness adds.
    assert 0.905 <= np.mean((low <= rho) & (rho <= high)) <= 0.985


def test_many_spots_are_measured_on_some_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    xy = grid(20)
    x, y = fields(xy, 400, 0.5, 100, 4)
    whole = Spacing.of(xy).effective_n(x, y)
    monkeypatch.setattr(intervals, "MOST", 200)
    monkeypatch.setattr(intervals, "_ROWS", 64)
    some = Spacing.of(xy)
    assert len(some.chosen) == 200
    assert np.median(some.effective_n(x, y)) == pytest.approx(np.median(whole), rel=0.2)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_few_spots_and_constant_sides_have_no_interval(k: int) -> None:
    xy = grid(2)[:k]
    x = np.random.default_rng(0).normal(size=(k, 3))
    x[:, 0] = 0.1
    n = Spacing.of(xy).effective_n(x, x)
    assert np.isnan(n[0])
    assert (np.isnan(n[1:]) | (n[1:] <= k)).all()
    low, high = fisher(correlate(x, x + 1), n)
    assert np.isnan(low[0])
    assert np.isnan(high[0])


def test_spots_at_one_place_do_not_break_it() -> None:
    x, y = np.random.default_rng(0).normal(size=(2, 30, 2))
    n = Spacing.of(np.zeros((30, 2))).effective_n(x, y)
    assert ((n > 0) & (n <= 30)).all()
