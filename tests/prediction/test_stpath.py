"""The network: what upstream computes, whatever the order, scale and chunks; what it refuses, and in which words."""

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor

from stpath_assets.errors import FeatureError, SettingsError, VocabularyError
from stpath_assets.prediction import Context, STPath, products, stpath
from stpath_assets.prediction.inputs import chunks, scaled_coordinates
from tests.prediction.conftest import GOLDEN, VOCABULARY, WEIGHTS, Golden, inputs

few = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def genes(model: STPath) -> list[str]:
    return model.vocabulary.symbols[5:40:7]


# ---- parity


def test_golden_outputs(model: STPath, golden: Golden) -> None:
    assert np.abs(golden.predict(model) - golden.expected).max() < 1e-5


@pytest.mark.shared
def test_golden_files_are_those_beside_the_checkout(shared: Path) -> None:
    for file in GOLDEN.iterdir():
        assert file.read_bytes() == (shared / "golden" / "stpath" / file.name).read_bytes()


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_the_fused_path_gives_golden_outputs(golden: Golden) -> None:
    model = STPath.load(WEIGHTS, VOCABULARY)
    model.fused = True
    assert np.abs(golden.predict(model) - golden.expected).max() < 1e-5


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("width", [8, 24, 32])
@pytest.mark.parametrize("n", [1, 2, 150])
def test_the_fused_path_agrees_with_the_chunked_one(n: int, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stpath, "FUSED_ROWS", 64)
    draw = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 2, n, width, generator=draw)
    xy, weights = torch.rand(2, n, generator=draw) * 100, torch.tensor([-0.1, 0.05])
    chunked, fused = (
        torch.cat([a for _, a in path(q, k, v, xy, weights)]) for path in (stpath._chunked, stpath._fused)
    )
    torch.testing.assert_close(fused, chunked, atol=1e-5, rtol=1e-5)


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_the_fused_path_compiles_for_any_number_of_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    # What CUDA runs, compiled for CPU: another backend, the same trace and the same dynamic shapes.
    monkeypatch.setattr(stpath, "_flex", stpath._compiled())
    draw = torch.Generator().manual_seed(0)
    for n in (700, 333):
        q, k, v = torch.randn(3, 2, n, 32, generator=draw)
        xy, weights = torch.rand(2, n, generator=draw) * 100, torch.tensor([-0.1, 0.05])
        with torch.inference_mode():
            chunked, fused = (
                torch.cat([a for _, a in path(q, k, v, xy, weights)]) for path in (stpath._chunked, stpath._fused)
            )
        torch.testing.assert_close(fused, chunked, atol=1e-5, rtol=1e-5)


def test_attention_is_what_it_says() -> None:
    draw = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 3, 70, 16, generator=draw, dtype=torch.float64)
    xy, weights = torch.rand(2, 70, generator=draw, dtype=torch.float64) * 100, torch.tensor([-0.1, 0.05, 0.0])
    distance = (xy[:, :, None] - xy[:, None]).square().sum(0).sqrt()
    scores = q @ k.mT / 4 + weights[:, None, None] * distance
    expected = (scores.softmax(-1) @ v).transpose(0, 1).reshape(70, -1)
    got = torch.cat([a for _, a in stpath._chunked(q.float(), k.float(), v.float(), xy.float(), weights)])
    torch.testing.assert_close(got, expected.float(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("dtype", "error"), [("bfloat16", 0.02), ("float16", 0.002)])
def test_half_precision_errs_no_more_than_it_says(golden: Golden, dtype: stpath.Dtype, error: float) -> None:
    model = STPath.load(WEIGHTS, VOCABULARY, dtype=dtype)
    got = golden.predict(model)
    assert got.dtype == np.float32
    assert 0 < np.abs(got - golden.expected).max() < error


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(("dtype", "error"), [("float32", 1e-4), ("bfloat16", 0.02), ("float16", 0.002)])
def test_golden_outputs_on_cuda(golden: Golden, fused: bool, dtype: stpath.Dtype, error: float) -> None:
    model = STPath.load(WEIGHTS, VOCABULARY, "cuda", dtype)
    model.fused = fused
    assert np.abs(golden.predict(model) - golden.expected).max() < error


@pytest.mark.parametrize(
    ("device", "dtype", "tiles", "fused"),
    [
        ("cuda", "float16", stpath.FUSED_FROM, True),
        ("cuda", "bfloat16", stpath.FUSED_FROM, True),
        ("cuda", "float16", stpath.FUSED_FROM - 1, False),
        ("cuda", "float32", stpath.FUSED_FROM, False),
        ("cpu", "float16", stpath.FUSED_FROM, False),
    ],
)
def test_attention_is_fused_where_that_pays(device: str, dtype: stpath.Dtype, tiles: int, fused: bool) -> None:
    model = STPath.load(WEIGHTS, VOCABULARY, dtype=dtype)
    model.device = torch.device(device)
    assert model._is_fused(tiles) == fused


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cuda_agrees_with_cpu_on_any_number_of_tiles(model: STPath, genes: list[str]) -> None:
    on_gpu = STPath.load(WEIGHTS, VOCABULARY, "cuda")
    for n in (1, 100, 1000, 20_001):
        features, xy = inputs(n)
        np.testing.assert_allclose(
            on_gpu.predict(features, xy, genes=genes), model.predict(features, xy, genes=genes), atol=1e-4
        )


def test_oneDNN_computes_what_linear_does() -> None:
    if not products.onednn_works():
        pytest.skip("this PyTorch has no oneDNN")
    x, w, b = torch.randn(7, 20), torch.randn(5, 20), torch.randn(5)
    for bias in (b, None):
        torch.testing.assert_close(
            products.linear(x[:, ::2], w[:, ::2], bias), x[:, ::2] @ w[:, ::2].T + (0 if bias is None else b)
        )


def test_without_oneDNN_the_numbers_are_the_same(
    model: STPath, golden: Golden, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "onednn_works", lambda: False)
    assert np.abs(golden.predict(model) - golden.expected).max() < 1e-5


def _changed_signature(*_: object) -> Tensor:
    raise TypeError("takes 7 arguments")


def _zeros(x: Tensor, weight: Tensor, *_: object) -> Tensor:
    return torch.zeros(len(x), len(weight))


@pytest.mark.parametrize(
    ("operation", "said"), [(_changed_signature, "raises TypeError"), (_zeros, "gives another result")]
)
def test_an_operation_that_has_changed_is_left_with_a_note(
    model: STPath, golden: Golden, monkeypatch: pytest.MonkeyPatch, operation: Callable[..., Tensor], said: str
) -> None:
    if not products.onednn_works():
        pytest.skip("this PyTorch has no oneDNN")
    monkeypatch.setattr(products, "onednn_works", products.onednn_works.__wrapped__)
    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", operation)
    with pytest.warns(UserWarning, match=said):
        found = golden.predict(model)
    assert np.abs(found - golden.expected).max() < 1e-5


# ---- properties


@few
@given(n=st.integers(1, 40), seed=st.integers(0, 99))
def test_permuting_tiles_permutes_rows(model: STPath, genes: list[str], n: int, seed: int) -> None:
    features, xy = inputs(n, seed)
    order = np.random.default_rng(seed).permutation(n)
    straight = model.predict(features, xy, "Breast", "Visium", genes)
    np.testing.assert_allclose(
        model.predict(features[order], xy[order], "Breast", "Visium", genes), straight[order], atol=1e-5
    )


@few
@given(
    n=st.integers(1, 40),
    move=hnp.arrays(np.float64, 2, elements=st.floats(-1e6, 1e6)),
    scale=hnp.arrays(np.float64, 2, elements=st.floats(1e-3, 1e3)),
)
def test_moving_and_scaling_each_axis_changes_nothing(
    model: STPath, genes: list[str], n: int, move: np.ndarray, scale: np.ndarray
) -> None:
    features, xy = inputs(n)
    np.testing.assert_allclose(
        model.predict(features, xy * scale + move, genes=genes), model.predict(features, xy, genes=genes), atol=1e-5
    )


@few
@given(data=st.data())
def test_some_genes_are_columns_of_all(model: STPath, in_context: Golden, data: st.DataObject) -> None:
    symbols = model.vocabulary.symbols
    some = data.draw(st.lists(st.sampled_from(symbols), min_size=1, max_size=20, unique=True))
    g = in_context
    everything = model.predict(g.features, g.coords, g.organ, g.tech, context=g.context)
    assert everything.shape == (len(g.features), len(symbols))
    np.testing.assert_allclose(
        model.predict(g.features, g.coords, g.organ, g.tech, some, g.context),
        everything[:, [symbols.index(s) for s in some]], atol=1e-6,
    )  # fmt: skip


@few
@given(rows=st.integers(1, 200), tiles=st.integers(1, 200), block=st.integers(1, 400))
def test_the_sizes_of_chunks_and_blocks_change_nothing(
    model: STPath, in_context: Golden, rows: int, tiles: int, block: int
) -> None:
    g = in_context
    expected = model.predict(g.features, g.coords, g.organ, g.tech, context=g.context)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stpath, "chunk_rows", lambda *_: rows)
        patch.setattr(stpath, "ROWS", tiles)
        patch.setattr(stpath, "block_genes", lambda _: block)
        got = model.predict(g.features, g.coords, g.organ, g.tech, context=g.context)
    np.testing.assert_allclose(got, expected, atol=1e-5)


@few
@given(data=st.data())
def test_a_context_of_unknown_genes_changes_nothing(model: STPath, genes: list[str], data: st.DataObject) -> None:
    features, xy = inputs(12)
    names = data.draw(st.lists(st.text("XYZ?", min_size=8, max_size=12), max_size=4, unique=True))
    counts = data.draw(hnp.arrays(np.int64, (3, len(names)), elements=st.integers(0, 99)))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        got = model.predict(features, xy, genes=genes, context=Context([0, 4, 5], counts, names))
    assert "no gene of the context is known" in str(said[0].message)
    np.testing.assert_array_equal(got, model.predict(features, xy, genes=genes))


@given(n=st.integers(0, 5000), size=st.integers(1, 999))
def test_chunks_cover_everything_once(n: int, size: int) -> None:
    assert [i for part in chunks(n, size) for i in range(n)[part]] == list(range(n))


@given(n=st.integers(0, 1_000_000))
def test_chunks_follow_from_the_tiles_and_the_budget(n: int) -> None:
    rows, block = stpath.chunk_rows(n, stpath.CHUNK_BYTES), stpath.block_genes(n)
    assert rows == stpath.MIN_CHUNK or 12 * n * rows <= stpath.CHUNK_BYTES
    assert block == 64 or 4 * n * block <= stpath.BLOCK_BYTES
    assert block % 64 == 0


# ---- layouts at the edge


@pytest.mark.parametrize(
    "xy",
    [
        [[5.0, 7.0]],
        [[float(x), 3.0] for x in range(6)],
        [[3.0, float(y)] for y in range(6)],
        [[1.0, 1.0]] * 4,
        [[0.0, 0.0], [1e-300, 0.0], [0.0, 1e30]],
    ],
    ids=["one tile", "one row", "one column", "one place", "extreme extents"],
)
def test_any_layout_gives_numbers(model: STPath, genes: list[str], xy: list[list[float]]) -> None:
    got = model.predict(inputs(len(xy))[0], xy, genes=genes)
    assert got.shape == (len(xy), len(genes))
    assert np.isfinite(got).all()


def test_an_axis_without_extent_is_0() -> None:
    np.testing.assert_array_equal(scaled_coordinates(np.array([[5.0, 2], [7, 2]])), [[0, 0], [100, 0]])


def test_twins_get_the_same_numbers(model: STPath, genes: list[str]) -> None:
    features, xy = inputs(5)
    features[3], xy[3] = features[1], xy[1]
    got = model.predict(features, xy, genes=genes)
    np.testing.assert_allclose(got[3], got[1], atol=1e-6)


@pytest.mark.parametrize("fused", [False, True])
def test_no_tiles_give_no_rows(genes: list[str], fused: bool) -> None:
    model = STPath.load(WEIGHTS, VOCABULARY)
    model.fused = fused
    none = np.empty((0, 1536), np.float32), np.empty((0, 2))
    assert model.predict(*none, "Breast", "Visium", genes).shape == (0, len(genes))
    assert model.predict(*none).shape == (0, 300)
    assert model.predict(*none, genes=genes, context=Context([], np.empty((0, 1)), [genes[0]])).shape == (0, len(genes))


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a.astype(np.float64),
        lambda a: np.asfortranarray(a),
        lambda a: np.repeat(a, 2, axis=1)[:, ::2],
        lambda a: a[::-1][::-1],
        lambda a: a.tolist(),
        lambda a: torch.from_numpy(a),
        lambda a: a.astype(">f4"),
    ],
)
def test_any_array_of_the_same_numbers_will_do(model: STPath, genes: list[str], change) -> None:
    features, xy = inputs(20)
    xy = xy.astype(np.float32)
    np.testing.assert_array_equal(
        model.predict(change(features), change(xy), genes=genes), model.predict(features, xy, genes=genes)
    )


def test_whole_numbers_will_do(model: STPath, genes: list[str]) -> None:
    rng = np.random.default_rng(0)
    features, xy = rng.integers(-3, 4, (9, 1536)), rng.integers(0, 50_000, (9, 2), np.uint16)
    np.testing.assert_array_equal(
        model.predict(features, xy, genes=genes),
        model.predict(features.astype(np.float32), xy.astype(np.float64), genes=genes),
    )


def test_inputs_stay_as_they_are(model: STPath, in_context: Golden) -> None:
    g, c = in_context, in_context.context
    given_ = [g.features, g.coords, c.indices, c.counts]
    before = [a.copy() for a in given_]
    for a in given_:
        a.flags.writeable = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            g.predict(model)
    finally:
        for a in given_:
            a.flags.writeable = True
    for a, b in zip(given_, before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_between_blocks_gradients_are_as_the_caller_had_them(model: STPath) -> None:
    blocks = model.predict_blocks(*inputs(3))
    next(blocks)
    assert not torch.is_inference_mode_enabled()


def test_all_genes_come_in_blocks_of_whole_row_groups(model: STPath) -> None:
    features, xy = inputs(30)
    blocks = list(model.predict_blocks(features, xy))
    assert [len(genes) for genes, _ in blocks] == [300]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stpath, "GENES_A_BLOCK", (64, 64))
        blocks = list(model.predict_blocks(features, xy))
    assert [len(genes) for genes, _ in blocks] == [64, 64, 64, 64, 44]
    assert [g for genes, _ in blocks for g in genes] == model.vocabulary.symbols
    np.testing.assert_array_equal(np.hstack([v for _, v in blocks]), model.predict(features, xy))


def test_the_order_asked_for_is_the_order_given(model: STPath, genes: list[str]) -> None:
    features, xy = inputs(7)
    np.testing.assert_allclose(
        model.predict(features, xy, genes=genes[::-1]), model.predict(features, xy, genes=genes)[:, ::-1], atol=1e-6
    )


# ---- organs and technologies


def test_what_is_known_of_the_slide_matters(model: STPath, genes: list[str]) -> None:
    features, xy = inputs(6)
    known = [(None, None), ("Breast", None), (None, "Visium"), ("Breast", "Visium"), ("Others", "Visium HD")]
    got = [model.predict(features, xy, *k, genes) for k in known]
    assert all(np.abs(a - b).max() > 1e-4 for i, a in enumerate(got) for b in got[:i])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("breast", "VISIUM"), ("Breast", "Visium")),
        ((None, "visium-hd"), (None, "VisiumHD")),
        (("Bladder", "ST"), ("Others", "Spatial Transcriptomics")),
        (("kidney/brain", None), ("Others", None)),
        (("spinal_cord", None), ("Spinal cord", None)),
    ],
)
def test_spellings_mean_the_same(model: STPath, genes: list[str], one, other) -> None:
    features, xy = inputs(6)
    np.testing.assert_array_equal(model.predict(features, xy, *one, genes), model.predict(features, xy, *other, genes))


def test_none_is_padding(genes: list[str]) -> None:
    model = STPath.load(WEIGHTS, VOCABULARY)
    before = model.predict(*inputs(6), genes=genes)
    for table in ("tech_embed", "organ_embed"):
        model.state[f"input_encoder.{table}.weight"][1:] = 0  # every row but that of <pad>
    np.testing.assert_array_equal(model.predict(*inputs(6), genes=genes), before)


@pytest.mark.parametrize(
    ("organ", "tech", "said"),
    [
        ("Brest", None, r"STPath has no organ token 'Brest'; did you mean Breast\? known: Spinal cord, Brain"),
        ("<pad>", None, "no organ token '<pad>'"),
        (None, "CosMx", "no technology token 'CosMx'; .*Spatial Transcriptomics, Visium, Xenium, Visium HD"),
    ],
)
def test_what_the_model_does_not_know_is_refused(model: STPath, organ, tech, said: str) -> None:
    with pytest.raises(VocabularyError, match=said) as e:
        model.predict(*inputs(3), organ, tech, ["ERBB2"], unknown="skip")
    assert "\n" not in str(e.value)


# ---- refusals


def _with(values: np.ndarray, row: int, value: float) -> np.ndarray:
    values = values.copy()
    values[row, 1] = value
    return values


F, XY = inputs(6)


@pytest.mark.parametrize(
    ("features", "coords", "said"),
    [
        (F[:, :100], XY, r"shape \(6, 100\).*take \(tiles, 1536\): embed with"),
        (F[0], XY, r"features have shape \(1536,\)"),
        (F, XY[:5], r"coords have shape \(5, 2\), not \(6, 2\)"),
        (F, XY[:, [0, 1, 1]], r"coords have shape \(6, 3\)"),
        (_with(F, 2, np.nan), XY, r"features of 1 tiles are not finite .*: t2; leave"),
        (_with(F, 4, -np.inf), XY, "features of 1 tiles .*: t4;"),
        (_with(F.astype(np.float64), 4, 1e200), XY, "features of 1 tiles .*: t4;"),
        (np.full_like(F, np.nan), XY, "features of 6 tiles .*: t0, t1, t2, t3, t4, …;"),
        (F, _with(XY, 5, np.nan), "coords of 1 tiles are not finite .*: t5;"),
        (F, _with(XY, 5, 1e308), "coords of 1 tiles are not finite .*: t5;"),
        (F.astype(str), XY, "features are of type <U.*, not real numbers"),
        (F.astype(np.complex64), XY, "features are of type complex64"),
        (F, XY.astype(object), "coords are of type object"),
        (_with(F, 1, 3e38), XY, "overflow in float32: check the features' scale"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_inputs_that_cannot_be_right_are_refused(model: STPath, features, coords, said: str) -> None:
    with pytest.raises(FeatureError, match=said) as e:
        model.predict(features, coords, genes=["ERBB2"], unknown="skip", tile_ids=[f"t{i}" for i in range(6)])
    assert "\n" not in str(e.value)


def test_tiles_without_names_are_told_by_their_position(model: STPath) -> None:
    with pytest.raises(FeatureError, match=r"not finite .*: 2;"):
        model.predict(_with(F, 2, np.nan), XY)
    with pytest.raises(FeatureError, match="2 tile_ids for 6 tiles"):
        model.predict(F, XY, tile_ids=["a", "b"])


def test_float16_overflow_is_an_error_and_not_a_number() -> None:
    model = STPath.load(WEIGHTS, VOCABULARY, dtype="float16")
    with pytest.raises(FeatureError, match=r"overflow in float16: .*float32"):
        model.predict(F * 1e36, XY)


def test_a_dtype_that_is_none_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"unknown dtype 'int8'; known: float32, bfloat16, float16"):
        STPath.load(WEIGHTS, VOCABULARY, dtype="int8")


def test_provenance(model: STPath) -> None:
    facts = model.provenance("breast", None, ["B", "A"])
    assert (facts["organ"], facts["tech"], facts["genes"]) == ("Breast", None, ["A", "B"])
    assert (facts["dtype"], facts["device"]) == ("float32", "cpu")
    assert len(facts["stpath_weights_sha256"]) == len(facts["vocabulary_sha256"]) == 64
    assert model.provenance(None, None, None)["genes"] is None
