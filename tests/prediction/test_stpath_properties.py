"""What must hold of the network whatever the slide: its numbers against the reference, and its symmetries."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stpath_assets.errors import FeatureError, SpotsError, VocabularyError, WeightsError
from stpath_assets.prediction import Context, STPath
from stpath_assets.prediction import stpath as engine

GOLDEN = Path(__file__).with_name("golden")
MODEL = STPath.load(GOLDEN / "stfm.pth", GOLDEN / "symbol2ensembl.json")
GENES = ["ERBB2", "ESR1", "KRT8"]


def slide(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 1536)).astype(np.float32), rng.uniform(0, 5000, (n, 2))


@pytest.mark.parametrize("case", ["breast_visium", "breast_visium_context"])
def test_golden_parity(case: str) -> None:
    z = np.load(GOLDEN / f"{case}.npz")
    context = None
    if "context_ids" in z:
        names = [str(g) for g in z["context_gene_names"]]
        context = Context(z["context_ids"], z["context_gene_exps"], names)
    genes = [str(g) for g in z["genes"]]
    y = MODEL.predict(z["features"], z["coords"], str(z["organ"]), str(z["tech"]), genes, context)
    assert y.dtype == np.float32
    assert np.abs(y - z["expected"]).max() < 1e-4


@given(st.integers(1, 60), st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_permuting_tiles_permutes_rows(n: int, seed: int) -> None:
    f, xy = slide(n, seed)
    order = np.random.default_rng(seed).permutation(n)
    np.testing.assert_allclose(
        MODEL.predict(f[order], xy[order], genes=GENES), MODEL.predict(f, xy, genes=GENES)[order], atol=1e-5
    )


@given(
    st.integers(2, 40),
    st.tuples(st.floats(-1e5, 1e5), st.floats(-1e5, 1e5)),
    st.tuples(st.floats(0.01, 100), st.floats(0.01, 100)),
)
@settings(max_examples=25, deadline=None)
def test_moving_and_stretching_each_axis_changes_nothing(n: int, move: tuple, stretch: tuple) -> None:
    f, xy = slide(n, n)
    moved = MODEL.predict(f, xy * stretch + move, genes=GENES)
    np.testing.assert_allclose(moved, MODEL.predict(f, xy, genes=GENES), atol=1e-4)


@given(st.lists(st.sampled_from(MODEL.vocabulary.symbols), min_size=1, max_size=20, unique=True))
@settings(max_examples=25, deadline=None)
def test_some_genes_are_columns_of_all(genes: list[str]) -> None:
    f, xy = slide(20)
    everything = MODEL.predict(f, xy, organ="Breast")
    columns = [MODEL.vocabulary.symbols.index(g) for g in genes]
    np.testing.assert_allclose(MODEL.predict(f, xy, organ="Breast", genes=genes), everything[:, columns], atol=1e-5)


@pytest.mark.parametrize("budget", [1, 40_000, 10**9])
def test_the_size_of_a_chunk_changes_nothing(budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    f, xy = slide(300)
    expected = MODEL.predict(f, xy, genes=GENES)
    rows = engine.chunk_rows
    monkeypatch.setattr(engine, "chunk_rows", lambda n, heads: rows(n, heads, budget))
    np.testing.assert_allclose(MODEL.predict(f, xy, genes=GENES), expected, atol=1e-5)


def test_the_fused_path_is_the_chunked_one(monkeypatch: pytest.MonkeyPatch) -> None:
    f, xy = slide(70)
    expected = MODEL.predict(f, xy, genes=GENES)
    monkeypatch.setattr(MODEL, "fused", True)
    np.testing.assert_allclose(MODEL.predict(f, xy, genes=GENES), expected, atol=1e-5)


def test_unknown_genes_of_a_context_change_nothing() -> None:
    f, xy = slide(12)
    counts = np.random.default_rng(0).poisson(3, (4, 3))
    known = MODEL.predict(f, xy, genes=GENES, context=Context([0, 3, 5, 7], counts, GENES))
    more = Context([0, 3, 5, 7], np.c_[counts, [[9], [9], [9], [9]]], [*GENES, "NOSUCH"])
    np.testing.assert_array_equal(MODEL.predict(f, xy, genes=GENES, context=more), known)
    assert np.abs(known - MODEL.predict(f, xy, genes=GENES)).max() > 1e-3
    with pytest.warns(UserWarning, match="unmeasured"):
        nothing = MODEL.predict(f, xy, genes=GENES, context=Context([0], [[9]], ["NOSUCH"]))
    np.testing.assert_array_equal(nothing, MODEL.predict(f, xy, genes=GENES))


def test_inputs_are_left_as_they_were_in_any_type() -> None:
    f, xy = slide(9)
    before = f.copy(), xy.copy()
    expected = MODEL.predict(f, xy, genes=GENES)
    wide = np.empty((9, 3072), np.float64)
    wide[:, ::2] = f
    np.testing.assert_allclose(MODEL.predict(wide[:, ::2], xy, genes=GENES), expected, atol=1e-5)
    np.testing.assert_array_equal(f, before[0])
    np.testing.assert_array_equal(xy, before[1])
    whole = np.round(xy).astype(np.int32)
    np.testing.assert_allclose(
        MODEL.predict(f, whole, genes=GENES), MODEL.predict(f, whole.astype(float), genes=GENES), atol=1e-6
    )


@pytest.mark.parametrize("coords", [np.zeros((1, 2)), np.array([[5.0, 1], [5, 2], [5, 9]]), np.full((4, 2), 7.0)])
def test_slides_without_extent_are_finite(coords: np.ndarray) -> None:
    assert np.isfinite(MODEL.predict(slide(len(coords))[0], coords, genes=GENES)).all()


def test_no_tiles_no_rows() -> None:
    assert MODEL.predict(np.empty((0, 1536)), np.empty((0, 2)), genes=GENES).shape == (0, 3)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_features_that_are_not_finite_are_named(value: float) -> None:
    f, xy = slide(5)
    f[3, 7] = value
    with pytest.raises(FeatureError, match="t3"):
        MODEL.predict(f, xy, genes=GENES, tile_ids=[f"t{i}" for i in range(5)])


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"organ": "brest"}, VocabularyError, "Breast"),
        ({"tech": "CosMx"}, VocabularyError, "Xenium"),
        ({"genes": ["ERBB22", "NOSUCHGENE"]}, VocabularyError, "ERBB2"),
        ({"genes": ["ERBB2", "ERBB2"]}, VocabularyError, "twice"),
        ({"context": Context([0, 0], [[1], [2]], ["ERBB2"])}, SpotsError, "twice"),
        ({"context": Context([5], [[1]], ["ERBB2"])}, SpotsError, "leave the"),
        ({"context": Context([0], [[-1]], ["ERBB2"])}, SpotsError, "negative"),
        ({"context": Context([0], [[1, 2]], ["ERBB2"])}, SpotsError, "shape"),
    ],
)
def test_refusals_are_one_line_that_helps(arguments: dict, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as e:
        MODEL.predict(*slide(5), **{"genes": GENES, **arguments})
    assert "\n" not in str(e.value)


def test_unknown_genes_can_be_skipped() -> None:
    assert MODEL.predict(*slide(3), genes=["ERBB2", "NOSUCH"], unknown="skip").shape == (3, 1)


def test_features_of_another_width_are_refused() -> None:
    with pytest.raises(FeatureError, match="1536"):
        MODEL.predict(np.zeros((4, 768)), np.zeros((4, 2)), genes=GENES)


def test_weights_that_do_not_fit_the_vocabulary_are_refused(tmp_path: Path) -> None:
    (tmp_path / "v.json").write_text('{"ERBB2": "ENSG1", "ESR1": "ENSG2"}')
    with pytest.raises(WeightsError, match="302 gene columns, its vocabulary makes 4"):
        STPath.load(GOLDEN / "stfm.pth", tmp_path / "v.json")
