"""In-context spots: however the counts come, the network sees log1p of the same genes in the same spots."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse

from stpath_assets.errors import SpotsError
from stpath_assets.prediction import Context, STPath, Vocabulary
from tests.prediction.conftest import inputs

VOCABULARY = Vocabulary.of(
    {"A": "ENSG00000000002", "B": "ENSG00000000001", "OLD_A": "ENSG00000000002", "C": "ENSG00000000003"}
)
COUNTS = np.array([[1, 0, 3], [0, 2, 0]])


def dense(context: Context, n: int = 9) -> np.ndarray:
    """Log1p counts (n, columns of the vocabulary), NaN in spots that are not measured."""
    indices, columns, logs = context.columns(VOCABULARY, n)
    out = np.full((n, VOCABULARY.width), np.nan)
    out[indices] = 0
    out[np.ix_(indices, columns)] = logs.toarray()
    return out


def test_counts_go_to_the_columns_of_their_genes() -> None:
    out = dense(Context([4, 2], COUNTS, ["A", "B", "C"]))
    np.testing.assert_allclose(out[4], [0, 0, 0, np.log(2), np.log(4)], rtol=1e-6)
    np.testing.assert_allclose(out[2], [0, 0, np.log(3), 0, 0], rtol=1e-6)
    assert np.isnan(out[[0, 1, 3, 5, 6, 7, 8]]).all()


@given(counts=hnp.arrays(np.int64, (5, 3), elements=st.integers(0, 10_000)))
def test_of_two_symbols_of_an_id_the_larger_count_is_taken(counts: np.ndarray) -> None:
    both = dense(Context(range(5), counts, ["A", "OLD_A", "C"]))
    one = dense(Context(range(5), np.c_[counts[:, :2].max(1), counts[:, 2]], ["A", "C"]))
    np.testing.assert_array_equal(both, one)


@pytest.mark.parametrize(
    "form",
    [
        sparse.csr_matrix, sparse.csc_matrix, sparse.coo_array, sparse.csr_array, sparse.lil_matrix, np.asarray,
        np.asfortranarray, pd.DataFrame, np.ndarray.tolist, lambda c: c.astype(np.float32), lambda c: c.astype(np.uint8),
    ],
)  # fmt: skip
def test_counts_of_any_form_mean_the_same(form) -> None:
    np.testing.assert_array_equal(
        dense(Context([4, 2], form(COUNTS), ["A", "B", "C"])), dense(Context([4, 2], COUNTS, ["A", "B", "C"]))
    )


def test_entries_of_a_sparse_matrix_that_are_given_twice_mean_their_sum() -> None:
    twice = sparse.csc_array((np.array([1.0, 2, 2]), np.array([0, 0, 1]), np.array([0, 2, 2, 3])), shape=(2, 3))
    assert not twice.has_canonical_format
    before = twice.data.copy()
    np.testing.assert_allclose(
        dense(Context([0, 1], twice, ["A", "B", "C"])), dense(Context([0, 1], [[3, 0, 0], [0, 0, 2]], ["A", "B", "C"]))
    )
    np.testing.assert_array_equal(twice.data, before)


def test_unknown_genes_are_dropped_and_known_ones_stay(model: STPath) -> None:
    features, xy = inputs(12)
    genes = model.vocabulary.symbols[:5]
    counts = np.random.default_rng(0).poisson(3, (4, 5))
    known = model.predict(features, xy, genes=genes, context=Context([0, 3, 5, 7], counts, genes))
    more = Context([0, 3, 5, 7], np.c_[counts, [9, 9, 9, 9]], [*genes, "NO-SUCH"])
    np.testing.assert_array_equal(model.predict(features, xy, genes=genes, context=more), known)
    assert np.abs(known - model.predict(features, xy, genes=genes)).max() > 1e-3


def test_ensembl_ids_name_genes_as_well() -> None:
    np.testing.assert_array_equal(
        dense(Context([0, 1], COUNTS, ["ENSG00000000002", "ENSG00000000001.7", "c"])),
        dense(Context([0, 1], COUNTS, ["A", "B", "C"])),
    )


def test_a_transcriptome_stays_sparse(model: STPath) -> None:
    features, xy = inputs(40)
    symbols = model.vocabulary.symbols
    wide = sparse.random(20, 36_000, density=0.001, rng=0, format="csr")
    wide = sparse.csr_matrix((np.ceil(wide.data * 9), wide.indices, wide.indptr), wide.shape)
    names = [*symbols, *(f"X{i}" for i in range(36_000 - len(symbols)))]
    narrow = Context(range(20), wide[:, : len(symbols)].toarray(), symbols)
    np.testing.assert_allclose(
        model.predict(features, xy, context=Context(range(20), wide, names)),
        model.predict(features, xy, context=narrow), atol=1e-6,
    )  # fmt: skip


def test_a_measured_spot_without_counts_is_not_an_unmeasured_one(model: STPath) -> None:
    features, xy = inputs(6)
    zeros = Context([1], np.zeros((1, 1)), model.vocabulary.symbols[:1])
    assert np.abs(model.predict(features, xy, context=zeros) - model.predict(features, xy)).max() > 1e-3


def test_no_spots_are_no_context(model: STPath) -> None:
    features, xy = inputs(6)
    none = Context([], np.empty((0, 1)), model.vocabulary.symbols[:1])
    np.testing.assert_array_equal(model.predict(features, xy, context=none), model.predict(features, xy))


# ---- from a mask, from a fraction


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix, sparse.coo_array])
def test_from_a_mask(form) -> None:
    counts = np.arange(15).reshape(5, 3)
    mask = np.array([False, True, False, False, True])
    made = Context.from_mask(mask, form(counts), ["A", "B", "C"])
    np.testing.assert_array_equal(dense(made), dense(Context([1, 4], counts[[1, 4]], ["A", "B", "C"])))


@pytest.mark.parametrize("mask", [[0, 1, 0, 0, 1], [True] * 4, [[True] * 5]])
def test_a_mask_that_is_none(mask) -> None:
    with pytest.raises(SpotsError, match="give True or False for each of the 5 rows"):
        Context.from_mask(mask, np.zeros((5, 3)), ["A", "B", "C"])


@settings(deadline=None)
@given(n=st.integers(1, 200), fraction=st.floats(0.001, 1), seed=st.integers(0, 99))
def test_a_fraction_of_the_spots(n: int, fraction: float, seed: int) -> None:
    whole = Context(np.arange(n) * 2, np.arange(n)[:, None], ["A"])
    part = whole.sample(fraction, seed)
    indices = np.asarray(part.indices)
    assert len(indices) == max(1, round(fraction * n))
    assert len(set(indices.tolist())) == len(indices)
    np.testing.assert_array_equal(indices, np.asarray(part.counts)[:, 0] * 2, "counts stay with their spots")
    np.testing.assert_array_equal(indices, whole.sample(fraction, seed).indices)


def test_of_no_spots_a_fraction_is_none() -> None:
    assert len(Context([], sparse.csr_matrix((0, 1)), ["A"]).sample(0.5, 0).indices) == 0


@pytest.mark.parametrize("fraction", [0, -0.1, 1.01, float("nan")])
def test_a_fraction_that_is_none(fraction: float) -> None:
    with pytest.raises(SpotsError, match="above 0, at most 1"):
        Context([0], [[1]], ["A"]).sample(fraction, 0)


# ---- refusals


@pytest.mark.parametrize(
    ("context", "said"),
    [
        (Context([0, 1], COUNTS[:1], ["A", "B", "C"]), r"counts have shape \(1, 3\), not \(2 spots, 3 genes\)"),
        (Context([0, 1], COUNTS, ["A", "B"]), r"not \(2 spots, 2 genes\)"),
        (Context([True, False], COUNTS, ["A", "B", "C"]), "turn a mask into them"),
        (Context([0.0, 1.0], COUNTS, ["A", "B", "C"]), "list of whole numbers"),
        (Context([0, 9], COUNTS, ["A", "B", "C"]), "indices 0 to 9 are outside the 9 tiles"),
        (Context([-1, 2], COUNTS, ["A", "B", "C"]), "indices -1 to 2 are outside"),
        (Context([3, 3], COUNTS, ["A", "B", "C"]), "a spot is given twice"),
        (Context([0, 1], COUNTS - 1, ["A", "B", "C"]), "negative or not finite; give raw counts"),
        (Context([0, 1], COUNTS * np.nan, ["A", "B", "C"]), "negative or not finite"),
        (Context([0, 1], COUNTS.astype(str), ["A", "B", "C"]), None),
        (Context([0, 1], [["a", "b", "c"]] * 2, ["A", "B", "C"]), "not a matrix of numbers"),
    ],
)
def test_a_context_that_cannot_be_right_is_refused(context: Context, said: str | None) -> None:
    if said is None:  # digits as text are numbers
        assert np.isfinite(dense(context)[0]).all()
        return
    with pytest.raises(SpotsError, match=said) as e:
        context.columns(VOCABULARY, 9)
    assert "\n" not in str(e.value)
