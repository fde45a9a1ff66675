"""Fitted predictors: against scikit-learn and by hand, their files, and the distance to what they know."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from stpath_assets.errors import FeatureError, WeightsError
from stpath_assets.evaluation.scores import correlate
from stpath_assets.features import Features
from stpath_assets.prediction.predictors import KINDS, About, Reference, Space, Training
from stpath_assets.prediction.predictors.linear import ALPHAS

D, GENES = 40, ["A", "B", "C"]


def drawn(seed: int = 0, k: int = 120) -> Training:
    """Values that follow the features: A and B their own, C nothing."""
    rng = np.random.default_rng(seed)
    spread = np.random.default_rng(98).uniform(0.1, 5, D)
    truth = np.random.default_rng(99).normal(size=(D, 3)) * (1, 1, 0)
    features = (rng.normal(size=(k, D)) * spread + 3).astype(np.float32)
    values = features @ truth / 5 + rng.normal(size=(k, 3))
    return Training(features, values, values[:, 0] * 0.5 + rng.normal(size=k) * 0.1, GENES)


def features_of(training: Training, slide_id: str = "other", encoder: str = "demo") -> Features:
    n = len(training.features)
    xy = np.stack([np.arange(n), np.zeros(n)], axis=1) * 224.0
    return Features(slide_id, [f"t{i}" for i in range(n)], training.features, xy, 0.5, 0.5, encoder)


def reference(kind: str, training: Training | None = None) -> Reference:
    training = training or drawn()
    about = About(kind, "mine", GENES, "raw_log1p", "demo", ["a", "b"], ["P1", "P1"], len(training.values))
    return Reference(about, KINDS[kind](training), Space.of(training.features))


def test_ridge_is_that_of_scikit_learn() -> None:
    training, other = drawn(), drawn(1)
    expected = make_pipeline(StandardScaler(), RidgeCV(alphas=ALPHAS)).fit(training.features, training.values)
    found = KINDS["ridge"](training).predict(other.features)
    np.testing.assert_allclose(found, expected.predict(other.features), rtol=1e-3, atol=1e-3)
    r = correlate(found, other.values)
    assert (r[:2] > 0.5).all(), "what follows the features is predicted"
    assert abs(r[2]) < 0.4


def test_neighbours_predict_a_mean_of_training_values() -> None:
    training, other = drawn(), drawn(1)
    found = KINDS["knn"](training).predict(other.features)
    assert (found >= training.values.min(axis=0) - 1e-5).all()
    assert (found <= training.values.max(axis=0) + 1e-5).all()
    assert correlate(found, other.values)[0] > 0.3


def test_the_depth_alone_gives_all_genes_one_pattern() -> None:
    training, other = drawn(), drawn(1)
    found = KINDS["depth_only"](training).predict(other.features).astype(float)
    assert abs(correlate(found[:, :1], found[:, 1:2])[0]) == pytest.approx(1, abs=1e-4)
    assert correlate(found, other.log_depth[:, None])[0] > 0.5
    # On the training spots, each gene is its own line through the predicted depth.
    of_training = KINDS["depth_only"](training).predict(training.features).astype(float)
    np.testing.assert_allclose(of_training.mean(axis=0), training.values.mean(axis=0), atol=1e-3)


def test_the_mean_is_the_same_everywhere() -> None:
    training = drawn()
    found = KINDS["mean"](training).predict(drawn(1).features)
    np.testing.assert_allclose(found, np.tile(training.values.mean(axis=0), (len(found), 1)), rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_features_that_never_vary_break_nothing(kind: str) -> None:
    training = drawn()
    training.features[:, :5] = 0.1
    assert np.isfinite(KINDS[kind](training).predict(drawn(1).features)).all()
    assert np.isfinite(Space.of(training.features).distance(training.features)).all()


# ---- a slide's prediction


def test_a_prediction_has_the_form_of_the_networks() -> None:
    other = drawn(1)
    pred = reference("ridge").predict(features_of(other))
    assert pred.shape == (120, 3)
    assert pred.X.dtype == np.float32
    assert list(pred.var_names) == GENES
    assert {"tile_id", "library_id", "distance_to_training"} <= set(pred.obs)
    histo = pred.uns["histo"]
    assert (histo["method"], histo["model"], histo["scale"]) == ("ridge", "ridge:mine", "raw_log1p")
    assert (histo["slides"], histo["fm_backbone"]) == ("a,b", "demo")


def test_what_was_trained_on_is_not_predicted_unless_that_is_meant() -> None:
    fitted, mine = reference("ridge"), features_of(drawn(), "a")
    with pytest.raises(FeatureError, match=r"^a: ridge:mine was fitted to this slide, so its score would say nothing"):
        fitted.predict(mine)
    assert fitted.predict(mine, allow_trained=True).n_obs == 120
    with pytest.raises(FeatureError, match="features are the gigapath encoder's, but ridge:mine takes demo's"):
        fitted.predict(features_of(drawn(1), encoder="gigapath"))


def test_the_distance_is_one_among_the_training_tiles_and_grows_away_from_them() -> None:
    training = drawn()
    space = Space.of(training.features)
    near, far = space.distance(drawn(1).features), space.distance(drawn(1).features + 40)
    assert 0.7 < np.median(near) < 1.5
    assert np.median(far) > 3 * np.median(near)
    np.testing.assert_allclose(space.distance(training.features[:3])[0], space.distance(training.features[:1])[0])


# ---- files


@pytest.mark.parametrize("kind", KINDS)
def test_it_comes_back_from_its_file(kind: str, tmp_path: Path) -> None:
    fitted, other = reference(kind), features_of(drawn(1))
    fitted.save(tmp_path / "é m.npz")
    back = Reference.load(tmp_path / "é m.npz")
    assert back.about == fitted.about
    expected, found = fitted.predict(other), back.predict(other)
    np.testing.assert_array_equal(found.X, expected.X)
    np.testing.assert_array_equal(found.obs["distance_to_training"], expected.obs["distance_to_training"])


@settings(max_examples=25, deadline=None)
@given(at=st.floats(0, 1), cut=st.booleans())
def test_a_damaged_file_is_one_line(tmp_path_factory: pytest.TempPathFactory, at: float, cut: bool) -> None:
    path = tmp_path_factory.mktemp("m") / "m.npz"
    reference("mean").save(path)
    content = bytearray(path.read_bytes())
    i = min(int(at * len(content)), len(content) - 1)
    content[i] ^= 0xFF
    path.write_bytes(bytes(content[:i] if cut else content))
    said = refusal(path)
    if cut or said:  # one changed byte may be one that nothing depends on
        assert said.startswith(f"{path}: cannot be read as a fitted predictor")
        assert "\n" not in said


def refusal(path: Path) -> str:
    try:
        Reference.load(path)
    except WeightsError as e:
        return str(e)
    return ""


def test_files_that_are_none_and_of_another_version(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"no archive")
    np.savez(tmp_path / "b.npz", x=np.zeros(2))
    np.savez(tmp_path / "c.npz", about=np.array('{"version": 99}'))
    for name in ("a", "b", "c", "none"):
        with pytest.raises(WeightsError, match=r"cannot be read as a fitted predictor .*fit it again"):
            Reference.load(tmp_path / f"{name}.npz")
