"""Scores and scales: by hand, against scipy and scikit-learn's definitions, and their invariants."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from stpath_assets.evaluation.protocols import CP10K, PROTOCOLS, RAW, noise_ceiling
from stpath_assets.evaluation.scores import correlate, partial_r, score

seeds = st.integers(0, 2**32 - 1)
Pair = tuple[np.ndarray, np.ndarray]


def sample(seed: int, k: int = 12, g: int = 4) -> Pair:
    """Predictions and measured values on one scale."""
    rng = np.random.default_rng(seed)
    measured = np.log1p(rng.poisson(rng.gamma(1, 4, (1, g)), (k, g)))
    return measured * 0.5 + rng.normal(0, 1, (k, g)), measured


def test_score_by_hand() -> None:
    scores = score(np.array([[1.0], [0.0], [3.0], [2.0]]), np.array([[0.0], [1.0], [2.0], [3.0]]))
    # dx·dy = 3, both sums of squares 5, each residual 1.
    assert scores["pearson_r"] == pytest.approx([0.6])
    assert scores["r2"] == pytest.approx([1 - 4 / 5])
    assert scores["mse"] == pytest.approx([1])


@given(seeds)
def test_r_is_that_of_scipy_and_r2_that_of_the_definition(seed: int) -> None:
    predicted, measured = sample(seed)
    scores = score(predicted, measured)
    for i in np.flatnonzero(np.ptp(measured, axis=0)):
        assert scores["pearson_r"][i] == pytest.approx(
            stats.pearsonr(predicted[:, i], measured[:, i]).statistic, abs=1e-12
        )
        residual = ((predicted[:, i] - measured[:, i]) ** 2).sum()
        assert scores["r2"][i] == pytest.approx(1 - residual / ((measured[:, i] - measured[:, i].mean()) ** 2).sum())


@given(seeds)
def test_the_order_of_spots_changes_nothing(seed: int) -> None:
    predicted, measured = sample(seed)
    order = np.random.default_rng(seed).permutation(len(measured))
    shuffled = score(predicted[order], measured[order])
    for name, values in score(predicted, measured).items():
        np.testing.assert_allclose(shuffled[name], values, rtol=1e-9, atol=1e-9)


@given(seeds, st.floats(1e-3, 1e3), st.floats(-1e3, 1e3))
def test_r_does_not_see_a_positive_affine_transform_of_the_prediction(seed: int, scale: float, shift: float) -> None:
    predicted, measured = sample(seed)
    before, after = score(predicted, measured), score(scale * predicted + shift, measured)
    np.testing.assert_allclose(after["pearson_r"], before["pearson_r"], atol=1e-6)


def test_a_perfect_prediction() -> None:
    measured = np.log1p(np.arange(8).reshape(4, 2) ** 2)
    scores = score(measured, measured)
    assert scores["pearson_r"] == pytest.approx([1, 1])
    assert scores["r2"] == pytest.approx([1, 1])
    assert scores["mse"].tolist() == [0, 0]


def test_what_a_constant_side_leaves_undefined() -> None:
    # 0.1 summed seven times and divided is not 0.1: a constant must not become noise that correlates.
    constant, varied = np.full((7, 1), 0.1), np.linspace(0, 1, 7)[:, None]
    flat_prediction, flat_measured = score(constant, varied), score(varied, constant)
    for scores in (flat_prediction, flat_measured):
        assert np.isnan(scores["pearson_r"]).all()
        assert np.isfinite(scores["mse"]).all()
    assert np.isfinite(flat_prediction["r2"]).all()
    assert np.isnan(flat_measured["r2"]).all()


@pytest.mark.parametrize(("k", "has_r"), [(0, False), (1, False), (2, False), (3, True), (4, True)])
def test_few_spots(k: int, has_r: bool) -> None:
    scores = score(np.array([[0.1], [0.4], [0.2], [0.9]])[:k], np.arange(4.0)[:k, None])
    assert np.isfinite(scores["pearson_r"]).all() == has_r
    assert np.isfinite(scores["mse"]).all() == (k > 0)


def test_values_that_earlier_stages_must_refuse_are_no_scores() -> None:
    for predicted, measured in (([[np.nan]], [[1.0]]), ([[1.0]], [[np.inf]]), ([[1.0, 2.0]], [[1.0]])):
        with pytest.raises(ValueError, match="finite"):
            score(np.array(predicted), np.array(measured))


# ---- beyond depth


@given(seeds)
def test_r_beyond_depth_is_the_correlation_of_what_a_line_through_depth_leaves(seed: int) -> None:
    predicted, measured = sample(seed, k=30)
    depth = np.random.default_rng(seed + 1).normal(size=(30, 1)) + measured[:, :1]
    found = partial_r(correlate(predicted, measured), correlate(predicted, depth), correlate(measured, depth))
    line = np.column_stack([np.ones(30), depth])

    def left(values: np.ndarray) -> np.ndarray:
        return values - line @ np.linalg.lstsq(line, values, rcond=None)[0]

    expected = correlate(left(predicted), left(measured))
    varied = np.ptp(measured, axis=0) > 0
    np.testing.assert_allclose(found[varied], expected[varied], atol=1e-8)


def test_where_depth_says_all_nothing_is_left_to_score() -> None:
    depth, other = np.arange(9.0)[:, None], np.random.default_rng(0).normal(size=(9, 1))
    for x, y in ((depth * 2, other), (other, depth - 7)):
        assert np.isnan(partial_r(correlate(x, y), correlate(x, depth), correlate(y, depth)))


# ---- scales and the noise ceiling


def test_the_scales_are_what_they_are_called() -> None:
    counts, depth = np.array([[3.0, 0.0], [10.0, 1.0]]), np.array([100.0, 2000.0])
    assert [p.name for p in PROTOCOLS] == ["tutorial:raw_log1p", "tutorial:cp10k_log1p"]
    np.testing.assert_allclose(RAW.scale(counts, depth), np.log1p(counts))
    np.testing.assert_allclose(CP10K.scale(counts, depth), np.log1p([[300, 0], [50, 5]]))
    nothing = CP10K.scale(np.zeros((1, 2)), np.zeros(1))
    np.testing.assert_array_equal(nothing, 0, "a spot in tissue may have no count at all")


@given(seeds, st.integers(2, 9))
def test_counts_per_10_000_do_not_see_the_depth(seed: int, factor: int) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.poisson(5, (8, 3)).astype(float)
    depth = counts.sum(axis=1) + 50
    times = rng.integers(1, factor, 8)
    np.testing.assert_allclose(CP10K.scale(counts * times[:, None], depth * times), CP10K.scale(counts, depth))


def test_the_ceiling_is_what_knowing_the_expected_counts_reaches() -> None:
    # Genes of one expected pattern, from hardly measured to well measured.
    rng = np.random.default_rng(0)
    means = np.array([0.3, 2.0, 20.0, 500.0])
    pattern = rng.gamma(2, 0.5, (4000, 1))
    expected = pattern * means
    counts, depth = rng.poisson(expected), np.full(4000, 1e4)
    reached = correlate(np.log1p(expected), np.log1p(counts))
    ceiling = noise_ceiling(counts, depth, RAW.scale)
    np.testing.assert_allclose(ceiling, reached, atol=0.06)
    assert (np.diff(ceiling) > 0).all()
    np.testing.assert_array_equal(noise_ceiling(counts, depth, RAW.scale), ceiling, "the same seed, the same ceiling")


def test_where_counts_are_too_few_there_is_no_ceiling() -> None:
    counts = np.zeros((50, 2), int)
    counts[0, 1] = 1
    assert np.isnan(noise_ceiling(counts, np.full(50, 10.0), RAW.scale)).all()


def test_importing_evaluation_imports_neither_torch_nor_dagster() -> None:
    code = "import sys, stpath_assets.evaluation; print(*{'torch', 'dagster', 'anndata'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
