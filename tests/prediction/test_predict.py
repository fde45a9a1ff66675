"""Predictions as an AnnData and as a stored part: the same numbers, with what they were made from."""

import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import anndata
import numpy as np
import pyarrow as pa
import pytest

import stpath_assets as sa
from stpath_assets.errors import FeatureError, VocabularyError, WeightsError
from stpath_assets.features.embedding import Features
from stpath_assets.prediction import Context, ModelChoice, STPath, predict_expression, read_prediction, store_prediction
from stpath_assets.settings import load_settings
from stpath_assets.slides import Registered
from stpath_assets.storage import Store, fingerprint
from stpath_assets.storage.fingerprint import sha256_of_file
from stpath_assets.tables import GIGAPATH_FEATURES, STPATH_PREDICTIONS, TILE_GRIDS
from tests.prediction.conftest import VOCABULARY, WEIGHTS, Golden, inputs

SMALL = ModelChoice("stpath", WEIGHTS, VOCABULARY, "cpu")
TABLE = STPATH_PREDICTIONS.name


def made_features(n: int, encoder: str = "gigapath", seed: int = 0) -> Features:
    matrix, xy = inputs(n, seed)
    return Features("s1", [f"t{i}" for i in range(n)], matrix, xy, 0.25, 0.5, encoder)


@pytest.fixture
def features() -> Features:
    return made_features(20)


# ---- as an AnnData


def test_the_contract_of_an_anndata(features: Features, model: STPath, tmp_path: Path) -> None:
    genes = ["ESR1", "erbb2"]
    data = predict_expression(features, "breast", "visium", genes, model=SMALL)
    np.testing.assert_array_equal(
        data.X, model.predict(features.matrix, features.centers_px, "Breast", "Visium", genes)
    )
    assert data.X.dtype == np.float32
    assert data.var_names.tolist() == genes, "as asked"
    assert data.obs["tile_id"].tolist() == features.tile_ids
    assert set(data.obs["library_id"]) == {"s1"}
    np.testing.assert_array_equal(data.obsm["spatial"], features.centers_px)
    histo = data.uns["histo"]
    assert histo == {
        "method": "stpath", "expression": "predicted, log1p", "model": "stpath", "fm_backbone": "gigapath",
        "mpp": 0.5, "slide_mpp": 0.25,
        "version": sa.__version__, "organ": "Breast", "tech": "Visium", "genes": sorted(genes), "dtype": "float32",
        "device": "cpu", "stpath_weights_sha256": sha256_of_file(WEIGHTS), "vocabulary_sha256": sha256_of_file(VOCABULARY),
    }  # fmt: skip
    data.write_h5ad(tmp_path / "p.h5ad")
    back = anndata.read_h5ad(tmp_path / "p.h5ad").uns["histo"]
    assert {k: v for k, v in back.items() if k != "genes"} == {k: v for k, v in histo.items() if k != "genes"}
    assert list(back["genes"]) == sorted(genes)


def test_what_is_not_given_is_said(features: Features) -> None:
    data = predict_expression(features, model=SMALL)
    assert data.shape == (20, 300)
    assert [data.uns["histo"][k] for k in ("organ", "tech", "genes")] == ["<pad>", "<pad>", "all"]


def test_context_reaches_the_network(features: Features, model: STPath) -> None:
    context = Context([3, 4], [[5], [0]], ["ERBB2"])
    np.testing.assert_array_equal(
        predict_expression(features, genes=["ESR1"], context=context, model=SMALL).X,
        model.predict(features.matrix, features.centers_px, genes=["ESR1"], context=context),
    )


def test_unknown_genes_are_refused_or_skipped(features: Features) -> None:
    with pytest.raises(VocabularyError, match=r"ERBB22 \(close: ERBB2"):
        predict_expression(features, genes=["ERBB22", "ESR1"], model=SMALL)
    data = predict_expression(features, genes=["ERBB22", "ESR1"], unknown="skip", model=SMALL)
    assert data.var_names.tolist() == ["ESR1"]
    assert data.uns["histo"]["genes"] == ["ESR1"]


def test_tiles_with_broken_features_are_named(features: Features) -> None:
    features.matrix[7, 0] = np.nan
    with pytest.raises(FeatureError, match=r"not finite .*: t7;"):
        predict_expression(features, model=SMALL)


def test_weights_take_the_features_they_were_trained_on() -> None:
    with pytest.raises(FeatureError, match="s1: features are the demo encoder's, but stpath takes gigapath's"):
        predict_expression(made_features(3, "demo"), model=SMALL)
    with pytest.raises(FeatureError, match="stpath-demo takes demo's"):
        predict_expression(made_features(3), model=ModelChoice.for_encoder("demo", load_settings()))


def test_without_a_vocabulary_it_says_where_to_get_one(features: Features) -> None:
    with pytest.raises(WeightsError, match=r"utils_data/symbol2ensembl.json .* set STPATH_VOCABULARY"):
        predict_expression(features)


def test_the_settings_choose_weights_device_and_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings(weights=WEIGHTS, vocabulary=VOCABULARY, device="cpu", dtype="bfloat16")
    choice = ModelChoice.for_encoder("gigapath", settings)
    assert choice == ModelChoice("stpath", WEIGHTS, VOCABULARY, "cpu", "bfloat16")
    assert choice.load().dtype == "bfloat16"
    assert choice.load() is choice.load(), "kept for the life of the process"
    assert choice.load() is not SMALL.load()


# ---- stored


@pytest.fixture
def store(tmp_path: Path, features: Features) -> Store:
    """A data root that has a slide's tiles and features."""
    store = Store(tmp_path / "root")
    keep(store, features)
    return store


def keep(store: Store, features: Features) -> None:
    n = len(features)
    known = {
        "slide_id": pa.repeat("s1", n),
        "tile_id": pa.array(features.tile_ids),
        "center_x_px": pa.array(features.centers_px[:, 0]),
        "center_y_px": pa.array(features.centers_px[:, 1]),
    }
    columns = []
    for field in TILE_GRIDS.schema:
        filler = "x" if pa.types.is_string(field.type) else False if pa.types.is_boolean(field.type) else 0
        columns.append(known.get(field.name, pa.array([filler] * n, field.type)))
    tiles = fingerprint.start(slide_sha256="0" * 64, slide_mpp=0.25, tile_mpp=0.5)
    store.write(TILE_GRIDS.name, "s1", pa.table(columns, schema=TILE_GRIDS.schema), tiles)
    made = tiles.extend(
        "gigapath_features", "1", encoder=features.encoder, of=hashlib.sha256(features.matrix.tobytes()).hexdigest()
    )
    store.write(GIGAPATH_FEATURES.name, "s1", features.to_table(), made)


@pytest.fixture
def row() -> Registered:
    return Registered(
        "s1", "s1.tif", "0" * 64, 1, 1, 1, 0.25, "file", 0.25, None, 1, "Breast", "Visium", None, "ready", None, (),
        datetime.now(UTC),
    )  # fmt: skip


@pytest.mark.parametrize("genes", [None, ["ESR1", "ERBB2", "KRT8"]])
def test_what_is_stored_is_what_was_predicted(
    store: Store, row: Registered, features: Features, genes: list[str] | None
) -> None:
    assert store_prediction(store, row, SMALL, genes).recomputed
    back = read_prediction(store, "s1")
    straight = predict_expression(features, "Breast", "Visium", genes, model=SMALL)
    assert back.var_names.tolist() == sorted(straight.var_names), "sorted by gene"
    np.testing.assert_allclose(back.X, straight[:, back.var_names].X, atol=1e-6)
    assert back.obs["tile_id"].tolist() == features.tile_ids
    np.testing.assert_array_equal(back.obsm["spatial"], features.centers_px)
    device = straight.uns["histo"].pop("device")
    assert (back.uns["histo"], device) == (straight.uns["histo"], "cpu"), "but for the device, which is not stored"


def test_a_prediction_stored_as_float16_is_rounded(store: Store, row: Registered) -> None:
    genes = ["ERBB2", "ESR1"]
    store_prediction(store, row, SMALL, genes)
    exact = store.read_by_gene("stpath_predictions", row.slide_id).values
    half = replace(SMALL, store_as="float16")
    assert store_prediction(store, row, half, genes).recomputed
    found = store.read_by_gene("stpath_predictions", row.slide_id).values
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, exact.astype(np.float16).astype(np.float32))
    assert not store_prediction(store, row, half, genes).recomputed


def test_a_prediction_is_made_once(store: Store, row: Registered) -> None:
    first = store_prediction(store, row, SMALL, ["ERBB2", "ESR1"])
    again = store_prediction(store, row, SMALL, ["ESR1", "ERBB2"])
    assert (first.recomputed, again.recomputed) == (True, False), "the order of genes makes no other prediction"
    assert again.fingerprint.digest == first.fingerprint.digest


def test_a_prediction_is_made_anew_when_what_it_is_made_from_changes(
    store: Store, row: Registered, features: Features, tmp_path: Path
) -> None:
    genes = ["ERBB2"]
    other_weights = tmp_path / "other.pth"
    other_weights.write_bytes(WEIGHTS.read_bytes() + b" ")
    changes = {
        "organ": (replace(row, organ="Brain"), SMALL, genes),
        "tech": (replace(row, tech=None), SMALL, genes),
        "genes": (row, SMALL, ["ESR1"]),
        "all genes": (row, SMALL, None),
        "dtype": (row, replace(SMALL, dtype="bfloat16"), genes),
        "weights": (row, replace(SMALL, weights=other_weights), genes),
    }
    seen = set()
    for what, arguments in changes.items():
        store_prediction(store, row, SMALL, genes)
        made = store_prediction(store, *arguments)
        assert made.recomputed, what
        seen.add(made.fingerprint.digest)
    assert len(seen) == len(changes)
    store_prediction(store, row, SMALL, genes)
    keep(store, made_features(20, seed=1))
    assert store_prediction(store, row, SMALL, genes).recomputed, "other features"


def test_the_device_makes_no_other_prediction(store: Store, row: Registered) -> None:
    facts = store_prediction(store, row, SMALL, ["ERBB2"]).fingerprint.facts
    assert facts["dtype"] == "float32"
    assert facts["genes"] == ["ERBB2"]
    assert "device" not in facts
    assert store_prediction(store, row, replace(SMALL, device="auto"), ["ERBB2"]).recomputed is (
        SMALL.load().device.type != "cpu"
    )


def test_a_prediction_that_fails_leaves_the_one_before(store: Store, row: Registered) -> None:
    store_prediction(store, row, SMALL, ["ERBB2"])
    before = store.path(TABLE, "s1").read_bytes()
    broken = made_features(20)
    broken.matrix[2, 5] = np.inf
    keep(store, broken)
    with pytest.raises(FeatureError, match="t2;"):
        store_prediction(store, row, SMALL, ["ERBB2"])
    assert store.path(TABLE, "s1").read_bytes() == before
    assert list(store.path(TABLE, "s1").parent.iterdir()) == [store.path(TABLE, "s1")]


def test_a_prediction_of_earlier_tiles_is_refused(store: Store, row: Registered) -> None:
    store_prediction(store, row, SMALL, ["ERBB2"])
    keep(store, made_features(21))
    with pytest.raises(FeatureError, match="belongs to an earlier grid of tiles; run: stpath-assets run s1"):
        read_prediction(store, "s1")


def test_the_golden_case_through_the_stored_table(tmp_path: Path, row: Registered) -> None:
    golden = Golden.read(WEIGHTS.with_name("breast_visium.npz"))
    n = len(golden.features)
    features = Features(
        "s1", [f"t{i}" for i in range(n)], golden.features, golden.coords.astype(np.float64), 0.25, 0.5, "gigapath"
    )
    store = Store(tmp_path / "golden")
    keep(store, features)
    store_prediction(store, replace(row, organ=golden.organ, tech=golden.tech), SMALL, golden.genes)
    back = read_prediction(store, "s1")[:, golden.genes].X
    assert np.abs(back - golden.expected).max() < 1e-5
