"""Fitting to measured slides: what is paired and chosen, the issue's figures on real sections, and what is refused."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

import stpath_assets as sa
from stpath_assets.errors import FeatureError, SettingsError, SpotsError
from stpath_assets.features import Features
from stpath_assets.prediction.predictors import Reference
from stpath_assets.spots import Spots, read_spots

Slide = tuple[Features, Spots]


def drawn(slide_id: str, seed: int, genes: list[str], n: int = 60, encoder: str = "demo") -> Slide:
    """Tiles in a row, a spot near each centre, and counts of which the first gene follows the first feature."""
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(n, 8)).astype(np.float32)
    xy = np.stack([np.arange(n) * 224.0 + 112, np.full(n, 112.0)], axis=1)
    rate = np.full((n, len(genes)), 5.0)
    rate[:, 0] = 20 * np.exp(matrix[:, 0])
    counts = rng.poisson(rate).astype(np.int32)
    features = Features(slide_id, [f"t{i}" for i in range(n)], matrix, xy, 0.5, 0.5, encoder)
    spots = Spots([f"s{i}" for i in range(n)], xy + 20, genes, sparse.csc_matrix(counts), "h5ad")
    return features, spots


GENES = ["AA", "BB", "CC", "DD"]


def test_a_fit_predicts_what_follows_the_features() -> None:
    fitted = sa.fit([drawn("a", 0, GENES), drawn("b", 1, GENES)], name="two", genes=["BB", "AA"], patients=["P", "Q"])
    assert (fitted.about.genes, fitted.about.slides, fitted.about.spots) == (["BB", "AA"], ["a", "b"], 120)
    features, spots = drawn("c", 2, GENES)
    scores = sa.evaluate(fitted.predict(features), spots).set_index(["protocol", "gene"])
    assert scores["model"].unique().tolist() == ["ridge:two"]
    assert scores.loc[("tutorial:raw_log1p", "AA"), "pearson_r"] > 0.8


def test_genes_are_chosen_on_the_training_slides_only_among_those_that_all_have() -> None:
    first, second = drawn("a", 0, GENES), drawn("b", 1, ["AA", "CC", "EE"])
    assert sa.fit([first, second], name="n", genes=99).about.genes == ["AA", "CC"], "those that all have"
    assert sa.fit([first, second], name="n", genes=1).about.genes == ["AA"], "the most variable"


def test_spots_without_a_tile_are_left_out() -> None:
    features, spots = drawn("a", 0, GENES)
    spots.xy_px[:30] += 1e6
    assert sa.fit([(features, spots)], name="n").about.spots == 30


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda: {"model": "forest"}, SettingsError, "models are ridge, knn, depth_only, mean"),
        (lambda: {"scale": "log2"}, SettingsError, "scales are raw_log1p, cp10k_log1p"),
        (lambda: {"name": "my model"}, SettingsError, "a name has letters"),
        (lambda: {"genes": 0}, SettingsError, "a number of genes is at least 1"),
        (lambda: {"genes": ["AA", "NOTCH9"]}, SpotsError, "^not measured on all slides to fit to: NOTCH9"),
        (lambda: {"slides": []}, FeatureError, "features of 0 encoders"),
        (
            lambda: {"slides": [drawn("a", 0, GENES), drawn("b", 0, GENES, encoder="gigapath")]},
            FeatureError,
            "features of 2 encoders",
        ),
        (lambda: {"slides": [drawn("a", 0, GENES, n=19)]}, SpotsError, "^only 19 spots lie on tiles"),
    ],
)
def test_what_cannot_be_fitted_is_said(change: Callable[[], dict], error: type[Exception], words: str) -> None:
    given = {"slides": [drawn("a", 0, GENES)], "name": "n", **change()}
    with pytest.raises(error, match=words):
        sa.fit(given.pop("slides"), **given)


@pytest.fixture(scope="module")
def sections(shared: Path) -> dict[str, tuple[Features, Path]]:
    """C2 and C3 of her2st: demo features of tiles that are centred on spots, and the counts."""
    found = {}
    for name in ("C2", "C3"):
        spots = shared / "data" / "her2st" / f"{name}_counts.tsv.gz"
        with sa.open_slide(spots.with_name(f"{name}.tif"), mpp=0.687) as slide:
            found[name] = (sa.embed(sa.tile(slide, spots=read_spots(spots)), model="demo"), spots)
    return found


@pytest.mark.shared
@pytest.mark.filterwarnings("ignore:C2|C3|.*enlarged")
def test_real_sections_depth_reaches_nearly_what_ridge_does(sections: dict, tmp_path: Path) -> None:
    def mean_r(kind: str, scale: str) -> float:
        fitted = sa.fit([sections["C2"]], name="c2", model=kind, scale=scale, genes=50)
        fitted.save(tmp_path / "m.npz")
        features, spots = sections["C3"]
        scores = sa.evaluate(Reference.load(tmp_path / "m.npz").predict(features), spots)
        return float(scores[scores["protocol"] == f"tutorial:{scale}"]["pearson_r"].mean())

    # What other code measured on the 50 most variable genes of C2.
    assert mean_r("ridge", "raw_log1p") == pytest.approx(0.56, abs=0.03)
    assert mean_r("depth_only", "raw_log1p") == pytest.approx(0.53, abs=0.03)
    assert mean_r("ridge", "cp10k_log1p") == pytest.approx(0.27, abs=0.04)
