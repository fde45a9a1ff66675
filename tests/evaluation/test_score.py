"""Pairing and scores: by hand, against scipy and brute force, and their invariants."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import sparse
from scipy.stats import pearsonr

from stpath_assets.evaluation import PROTOCOL, empty_metrics, metrics_table, pair
from stpath_assets.evaluation.score import score
from stpath_assets.tables import EVALUATION_METRICS

# Quarters of a pixel make exact ties frequent, and their squares exact.
points = (
    st.integers(1, 30).flatmap(lambda n: arrays(np.int64, (n, 2), elements=st.integers(-40, 40))).map(lambda a: a / 4)
)
sides = st.integers(2, 80).map(lambda side: side / 4)
seeds = st.integers(0, 2**32 - 1)


def sample(seed: int, k: int = 12, g: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    counts = rng.poisson(rng.gamma(1, 4, (1, g)), (k, g))
    return np.log1p(counts) * 0.5 + rng.normal(0, 1, (k, g)), counts


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


def test_score_by_hand():
    counts = np.expm1([[0.0], [1.0], [2.0], [3.0]])  # measured 0, 1, 2, 3 in log1p
    scores = score(np.array([[1.0], [0.0], [3.0], [2.0]]), counts)
    # dx·dy = 3, both sums of squares 5, each residual 1.
    assert scores["pearson_r"] == pytest.approx([0.6])
    assert scores["r2"] == pytest.approx([1 - 4 / 5])
    assert scores["mse"] == pytest.approx([1])
    # atanh 0.6 = ln 2 = 0.693147, and with K - 3 = 1 the reach is 1.959964.
    assert scores["pearson_low"] == pytest.approx([np.tanh(0.693147 - 1.959964)], abs=1e-6)
    assert scores["pearson_high"] == pytest.approx([np.tanh(0.693147 + 1.959964)], abs=1e-6)


@given(seeds)
def test_r_and_its_interval_are_those_of_scipy(seed):
    predicted, counts = sample(seed)
    scores = score(predicted, counts)
    for i in np.flatnonzero(np.ptp(counts, axis=0)):
        expected = pearsonr(predicted[:, i], np.log1p(counts[:, i]))
        low, high = expected.confidence_interval(0.95)
        found = [scores[name][i] for name in ("pearson_r", "pearson_low", "pearson_high")]
        assert found == pytest.approx([expected.statistic, low, high], abs=1e-9)


@given(seeds)
def test_the_order_of_spots_changes_nothing(seed):
    predicted, counts = sample(seed)
    order = np.random.default_rng(seed).permutation(len(counts))
    shuffled = score(predicted[order], counts[order])
    for name, values in score(predicted, counts).items():
        np.testing.assert_allclose(shuffled[name], values, rtol=1e-9, atol=1e-9)


@given(seeds, st.floats(1e-3, 1e3), st.floats(-1e3, 1e3))
def test_r_does_not_see_a_positive_affine_transform_of_the_prediction(seed, scale, shift):
    predicted, counts = sample(seed)
    before, after = score(predicted, counts), score(scale * predicted + shift, counts)
    for name in ("pearson_r", "pearson_low", "pearson_high"):
        np.testing.assert_allclose(after[name], before[name], atol=1e-6)


def test_a_perfect_prediction():
    counts = np.arange(8).reshape(4, 2) ** 2
    scores = score(np.log1p(counts), counts)
    for name in ("pearson_r", "pearson_low", "pearson_high", "r2"):
        assert scores[name] == pytest.approx([1, 1])
    assert scores["mse"].tolist() == [0, 0]


def test_what_a_constant_side_leaves_undefined():
    # 0.1 summed seven times and divided is not 0.1: a constant must not become noise that correlates.
    constant = np.full((7, 1), 0.1)
    varied, counts = np.linspace(0, 1, 7)[:, None], np.arange(7)[:, None]
    flat_prediction, flat_counts = score(constant, counts), score(varied, np.full((7, 1), 3))
    for scores in (flat_prediction, flat_counts):
        assert np.isnan([scores[name][0] for name in ("pearson_r", "pearson_low", "pearson_high")]).all()
        assert np.isfinite(scores["mse"]).all()
    assert np.isfinite(flat_prediction["r2"]).all()
    assert np.isnan(flat_counts["r2"]).all()


@pytest.mark.parametrize(("k", "has_r", "has_interval"), [(1, 0, 0), (2, 0, 0), (3, 1, 0), (4, 1, 1)])
def test_few_spots(k, has_r, has_interval):
    scores = score(np.array([[0.1], [0.4], [0.2], [0.9]])[:k], np.arange(k)[:, None])
    assert np.isfinite(scores["pearson_r"]).all() == has_r
    assert np.isfinite(scores["pearson_low"]).all() == np.isfinite(scores["pearson_high"]).all() == has_interval
    assert np.isfinite(scores["mse"]).all()


def test_values_that_earlier_stages_must_refuse_are_no_scores():
    for predicted, counts in (([[np.nan]], [[1]]), ([[1.0]], [[-2]]), ([[1.0, 2.0]], [[1]])):
        with pytest.raises(ValueError, match="finite"), np.errstate(invalid="ignore"):
            score(np.array(predicted), np.array(counts))


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix, sparse.csc_matrix])
def test_metrics_table_pairs_genes_by_name_and_says_which_were_not_measured(form):
    predicted, counts = sample(3, k=9, g=3)
    table, missing = metrics_table("S1", "stpath", ["C", "X", "A"], predicted, ["A", "B", "C"], form(counts))
    assert table.schema.equals(EVALUATION_METRICS.schema)
    assert missing == ["X"]
    assert table["gene"].to_pylist() == ["C", "A"]
    assert set(table["slide_id"].to_pylist()) == {"S1"}
    assert set(table["model"].to_pylist()) == {"stpath"}
    assert set(table["protocol"].to_pylist()) == {PROTOCOL}
    assert table["n_spots"].to_pylist() == [9, 9]
    expected = score(predicted[:, [0, 2]], counts[:, [2, 0]])
    for name, values in expected.items():
        assert table[name].to_pylist() == values.tolist()


def test_undefined_scores_are_null_in_the_table():
    table, _ = metrics_table("S1", "stpath", ["A"], np.arange(5.0)[:, None], ["A"], np.full((5, 1), 2))
    row = table.to_pylist()[0]
    assert [row[name] for name in ("pearson_r", "pearson_low", "pearson_high", "r2")] == [None] * 4
    assert row["mse"] > 0


def test_more_genes_than_are_scored_at_a_time():
    predicted, counts = sample(5, k=6, g=1100)
    genes = [f"G{i:04}" for i in range(1100)]
    table, missing = metrics_table("S1", "stpath", genes, predicted, genes, sparse.csr_matrix(counts))
    assert table["gene"].to_pylist() == genes
    assert missing == []
    np.testing.assert_allclose(table["mse"].to_numpy(), score(predicted, counts)["mse"])


def test_tables_without_rows_have_the_schema():
    assert empty_metrics().schema.equals(EVALUATION_METRICS.schema)
    unpaired, missing = metrics_table("S1", "stpath", ["A", "X"], np.empty((0, 2)), ["A"], np.empty((0, 1), int))
    for table in (empty_metrics(), unpaired):
        assert table.num_rows == 0
        assert table.schema.equals(EVALUATION_METRICS.schema)
    assert missing == ["X"]
    with pytest.raises(ValueError, match="paired"):
        metrics_table("S1", "stpath", ["A"], np.zeros((2, 1)), ["A"], np.zeros((3, 1)))


def test_importing_evaluation_imports_neither_torch_nor_dagster():
    code = "import sys, stpath_assets.evaluation; print(*{'torch', 'dagster', 'anndata'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
