"""The demo weights: what ships loads as real weights do, and predicts a slide that it was not learnt on."""

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from stpath_assets.demo.genes import PANEL, vocabulary
from stpath_assets.demo.phantom import draw_phantom, write_slide
from stpath_assets.demo.spots import simulate, write_spots
from stpath_assets.evaluation.pairing import pair
from stpath_assets.evaluation.scores import score
from stpath_assets.features import embed
from stpath_assets.prediction import Context, STPath, Vocabulary
from stpath_assets.slides import open_slide
from stpath_assets.spots import Spots, read_spots
from stpath_assets.tiles import tile
from stpath_assets.vocabulary import tokens
from tools.demo_network import GENES_FROM, Shape, forward, initial_state
from tools.train_demo import WEIGHTS, Recipe, Sample, learn, save, spot_views

GENES = [g.symbol for g in PANEL]


@pytest.fixture(scope="module")
def shipped() -> STPath:
    return STPath.load(WEIGHTS / "stfm-demo.pth", WEIGHTS / "symbol2ensembl-demo.json")


def test_what_ships_is_small_and_speaks_the_demo_vocabulary(shipped: STPath) -> None:
    assert (WEIGHTS / "stfm-demo.pth").stat().st_size < 700_000
    assert json.loads((WEIGHTS / "symbol2ensembl-demo.json").read_text()) == vocabulary()
    assert shipped.sizes.genes == len(PANEL) + 2
    assert shipped.vocabulary.symbols == GENES
    assert all(v.isfinite().all() for v in shipped.state.values())


class HeldOut:
    """A phantom that is none of the demo's, with its tiles' features and its counts of `GENES`, paired with tiles."""

    def __init__(self, folder: Path) -> None:
        drawn = draw_phantom(8, size_um=1600)
        write_slide(drawn, folder / "h.tif")
        with open_slide(folder / "h.tif") as slide:
            features = embed(tile(slide), "demo")
            measured: Spots = read_spots(write_spots(simulate(drawn, 8), folder, "h"))
            self.spot, self.tile = pair(measured.xy_px, features.centers_px, 112 / slide.mpp)
        self.matrix, self.centers_px = features.matrix, features.centers_px
        self.counts = measured.counts.toarray()[self.spot][:, [measured.genes.index(g) for g in GENES]]

    def pearson(self, model: STPath, organ: str | None, tech: str | None) -> npt.NDArray[np.float64]:
        predicted = model.predict(self.matrix, self.centers_px, organ, tech, GENES)
        return score(predicted[self.tile], np.log1p(self.counts))["pearson_r"]


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> HeldOut:
    return HeldOut(tmp_path_factory.mktemp("held_out"))


@pytest.mark.parametrize(("organ", "tech"), [("Breast", "Visium"), (None, None), ("Lung", "Xenium")])
def test_a_slide_that_was_not_learnt_on_is_predicted_under_every_name(
    shipped: STPath, held_out: HeldOut, organ: str | None, tech: str | None
) -> None:
    r = held_out.pearson(shipped, organ, tech)
    assert len(held_out.spot) > 100
    assert np.nanmean(r) > 0.45
    follows_nothing = [g.compartment is None for g in PANEL]
    assert abs(np.nanmean(r[follows_nothing])) < 0.1


def test_measured_spots_in_context_do_no_harm(shipped: STPath, held_out: HeldOut) -> None:
    first = np.unique(held_out.tile, return_index=True)[1][::10]
    context = Context(held_out.tile[first], held_out.counts[first], GENES)
    predicted = shipped.predict(held_out.matrix, held_out.centers_px, "Breast", "Visium", GENES, context)
    rest = ~np.isin(held_out.tile, held_out.tile[first])
    r = score(predicted[held_out.tile[rest]], np.log1p(held_out.counts[rest]))["pearson_r"]
    assert np.nanmean(r) > 0.45


@pytest.mark.parametrize("with_context", [False, True])
def test_the_network_that_learns_is_the_network_that_predicts(with_context: bool) -> None:
    rng, n, genes = np.random.default_rng(0), 23, 7
    features = rng.standard_normal((n, 1536)).astype(np.float32)
    xy = rng.uniform(0, 900, (n, 2))
    counts = rng.poisson(3, (n, genes)).astype(np.float32)
    start = initial_state(torch.from_numpy(features), torch.from_numpy(counts).log1p(), Shape(d_model=12, layers=3), 0)
    noise = torch.Generator().manual_seed(0)
    state = {k: v + 0.1 * torch.randn(v.shape, generator=noise) for k, v in start.items()}
    model = STPath(state, Vocabulary.of({f"G{i}": f"ID{i}" for i in range(genes)}))
    context, rows = None, None
    if with_context:
        context = Context([2, 5], counts[[2, 5]], model.vocabulary.symbols)
        rows = torch.full((n, genes), torch.nan)
        rows[[2, 5]] = torch.from_numpy(counts[[2, 5]]).log1p()
    expected = model.predict(features, xy, "Breast", "Visium", context=context)
    y = forward(state, torch.from_numpy(features), xy, tokens.organ_id("Breast"), tokens.tech_id("Visium"), rows)
    np.testing.assert_allclose(y[:, GENES_FROM:].numpy(), expected, atol=2e-5)


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    folder = tmp_path_factory.mktemp("sample")
    drawn = draw_phantom(4, size_um=1024)
    write_slide(drawn, folder / "s.tif")
    counts = write_spots(simulate(drawn, 4), folder, "s")
    with open_slide(folder / "s.tif") as slide:
        return spot_views(slide, read_spots(counts), Recipe(views=2))


def test_views_are_of_the_spots_and_differ(sample: Sample) -> None:
    assert sample.views.shape == (2, len(sample.xy_um), 1536)
    assert sample.counts.shape == (len(sample.xy_um), len(PANEL))
    assert (sample.views[0] != sample.views[1]).any(1).all()


def test_learning_finds_what_counts_follow_and_is_seeded(sample: Sample, tmp_path: Path) -> None:
    recipe = Recipe(views=2, steps=75)
    state, r = learn(sample, recipe)
    again, _ = learn(sample, recipe)
    assert r > 0.25
    assert all(torch.equal(state[k], again[k]) for k in state)
    save(state, tmp_path)
    loaded = STPath.load(tmp_path / "stfm-demo.pth", tmp_path / "symbol2ensembl-demo.json")
    assert loaded.predict(sample.views[0].numpy(), sample.xy_um, genes=["EPCAM"]).shape == (len(sample.xy_um), 1)
