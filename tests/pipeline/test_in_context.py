"""`run --context-fraction`: a share of the spots is known, the rest is scored, beside what needs no image."""

import json
from pathlib import Path

import anndata
import numpy as np
import pytest

from stpath_assets.evaluation.in_context import nearest_spots
from stpath_assets.features import read_features
from stpath_assets.prediction import Context, ModelChoice
from stpath_assets.prediction.stored import read_predicted
from stpath_assets.settings import load_settings
from stpath_assets.slides import Registry
from stpath_assets.spots import read_stored
from stpath_assets.storage import Store
from tests.asked import ask
from tests.roots import command, copy_home

pytestmark = pytest.mark.usefixtures("same_figures", "blank_pictures")

MODELS = [
    "adapted(stpath-demo)",
    "in_context(stpath-demo)",
    "interpolation_only",
    "residual_smoothed(stpath-demo)",
    "stpath-demo",
]


@pytest.fixture(scope="module")
def home(demo_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's root, with phantom_B and phantom_C run in context."""
    home = tmp_path_factory.mktemp("context") / "home"
    copy_home(demo_home, home)
    ran = command("run", "phantom_B", "phantom_C", "--context-fraction", "0.2", "--seed", "3", "--home", home)
    assert ran.exit_code == 0, ran.output
    assert "in_context(0.2,random,3): spots whose tiles were not known" in ran.stdout
    assert "The demo weights make next to nothing of known spots" in ran.stdout
    return home


def test_held_out_spots_are_scored_for_all_models(home: Path) -> None:
    rows = ask(
        home,
        "select distinct protocol, model, n_spots from evaluation_metrics where slide_id = 'phantom_B' order by all",
    )
    counts = {protocol: {n for p, _, n in rows if p == protocol} for protocol, _, _ in rows}
    assert [m for p, m, _ in rows if p == "in_context(0.2,random,3):raw_log1p"] == MODELS
    assert counts["tutorial:raw_log1p"] == {126}
    (held_out,) = counts["in_context(0.2,random,3):cp10k_log1p"]
    known = ask(home, "select count(distinct tile_id) from context_predictions where is_context = 1")[0][0]
    assert 15 <= known <= 25
    assert held_out <= 126 - known
    pairs = ask(
        home, "select distinct model, than from model_comparison where protocol like 'in_context%' order by all"
    )
    assert len(pairs) == 10
    assert ask(home, "select count(*) from context_predictions where slide_id = 'phantom_C'") == [(0,)]


def test_what_is_stored_is_what_the_network_predicts_with_these_spots(home: Path) -> None:
    store, settings = Store(home), load_settings(home)
    row, features, spots = (
        Registry(store).get("phantom_B"),
        read_features(store, "phantom_B"),
        read_stored(store, "phantom_B"),
    )
    part = read_predicted(store, "phantom_B", "in_context(stpath-demo)")
    context = np.flatnonzero(part.keys["is_context"])
    spot, tile = nearest_spots(spots, features)
    chosen = spot[np.searchsorted(tile, context)]
    network = ModelChoice.for_encoder("demo", settings).load()
    expected = network.predict(
        features.matrix, features.centers_px, row.organ, row.tech, part.genes,
        Context(context, spots.counts.tocsr()[chosen], spots.genes),
    )  # fmt: skip
    np.testing.assert_allclose(part.values, expected, rtol=1e-5, atol=1e-5)


def test_a_smoothed_error_brings_predictions_nearer_to_what_was_measured(home: Path) -> None:
    store = Store(home)
    spots, features = read_stored(store, "phantom_B"), read_features(store, "phantom_B")
    better, plain = (read_predicted(store, "phantom_B", m) for m in ("residual_smoothed(stpath-demo)", "stpath-demo"))
    context = np.flatnonzero(better.keys["is_context"])
    spot, tile = nearest_spots(spots, features)
    columns = [spots.genes.index(g) for g in better.genes]
    counts = spots.counts.tocsr()[spot[np.searchsorted(tile, context)]].toarray()[:, columns]
    measured = np.log1p(counts.astype(float))
    errors = [np.abs(p.values[context] - measured).mean() for p in (better, plain)]
    assert errors[0] < errors[1]


def test_an_adapted_head_is_ridge_regression_on_the_last_state(home: Path) -> None:
    store, settings = Store(home), load_settings(home)
    row, features, spots = (
        Registry(store).get("phantom_B"), read_features(store, "phantom_B"), read_stored(store, "phantom_B")
    )  # fmt: skip
    part = read_predicted(store, "phantom_B", "adapted(stpath-demo)")
    context = np.flatnonzero(part.keys["is_context"])
    network = ModelChoice.for_encoder("demo", settings).load()
    state = network.hidden(features.matrix, features.centers_px, row.organ, row.tech).astype(float)
    spot, tile = nearest_spots(spots, features)
    gene = part.genes.index("EPCAM")
    known = np.log1p(
        spots.counts[:, spots.genes.index("EPCAM")].toarray().ravel()[spot[np.searchsorted(tile, context)]]
    )
    weights = network.state["gene_exp_head.1.weight"].numpy()
    assert state.shape[1] == weights.shape[1], "the state is what the network's own head reads"
    assert np.corrcoef(part.values[context, gene], known)[0, 1] > 0.5


@pytest.mark.soak
def test_later_runs_keep_the_context_and_0_ends_it(home: Path, tmp_path: Path) -> None:
    copy = tmp_path / "home"
    copy_home(home, copy)
    assert json.loads(command("status", "--json", "--home", copy).stdout)[1]["context_predictions"] == "current"
    ran = command("run", "phantom_B", "--home", copy)
    assert "in_context(0.2,random,3)" in ran.stdout
    assert command("run", "phantom_B", "--context-fraction", "0", "--home", copy).exit_code == 0
    assert ask(copy, "select count(*) from evaluation_metrics where protocol like 'in_context%'") == [(0,)]
    assert json.loads(command("status", "--json", "--home", copy).stdout)[1]["context_predictions"] == "–"


def test_too_few_spots_are_said(home: Path) -> None:
    ran = command("run", "phantom_A", "--context-fraction", "0.01", "--home", home)
    assert ran.exit_code == 1
    assert "too few for context 0.01: at least 5 known and 5 other ones are needed" in ran.stderr


def test_a_seed_without_a_share_is_wrong_usage(home: Path) -> None:
    ran = command("run", "--seed", "3", "--home", home)
    assert ran.exit_code == 2
    assert "--context-blocks and --seed need --context-fraction" in ran.stderr


def test_predict_takes_all_spots_as_known(demo_home: Path, tmp_path: Path) -> None:
    scan, counts = (demo_home / "inbox" / f"phantom_B{end}" for end in (".tif", "_counts.tsv.gz"))
    given = ("--encoder", "demo", "--organ", "Breast", "--tech", "Visium", "--genes", "EPCAM,VIM")
    plain = command("predict", scan, *given, "--out", tmp_path / "plain.h5ad")
    ran = command("predict", scan, *given, "--out", tmp_path / "known.h5ad", "--spots", counts)
    assert (plain.exit_code, ran.exit_code) == (0, 0), ran.output
    one, other = (anndata.read_h5ad(tmp_path / f"{name}.h5ad") for name in ("plain", "known"))
    assert f"98 tiles, {other.obs['is_context'].sum()} of them known, stpath-demo" in ran.stdout
    assert other.obs["is_context"].sum() > 60
    assert "is_context" not in one.obs
    assert not np.allclose(one.X, other.X, atol=1e-6)
