"""A prediction in scanpy and squidpy, as someone who knows them would go on."""

from pathlib import Path

import anndata
import numpy as np
import pytest

import stpath_assets as sa

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def pred(finished: Path) -> anndata.AnnData:
    """The tiles of the drawn slide, and 40 genes."""
    slide = sa.open_slide(finished / "a.tif")
    features = sa.embed(sa.tile(slide, stride=0.5), model="demo")
    found = sa.predict_expression(features, organ="Breast", tech="Visium")
    first = ["EPCAM", "VIM"]
    return found[:, [*first, *(g for g in found.var_names[:40] if g not in first)]].copy()


def test_a_map_in_under_ten_lines(finished: Path, tmp_path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import scanpy as sc

    import stpath_assets as sa

    slide = sa.open_slide(finished / "a.tif")
    features = sa.embed(sa.tile(slide, tile_px=224, mpp=0.5), model="demo")
    pred = sa.predict_expression(features, organ="Breast", tech="Visium", genes=["EPCAM", "CD74"])
    sc.pl.spatial(pred, color=["EPCAM", "CD74"], library_id="a", show=False)
    matplotlib.pyplot.savefig(tmp_path / "map.png")
    assert (tmp_path / "map.png").stat().st_size > 10_000


def test_scanpy_goes_on_from_it(pred: anndata.AnnData, tmp_path: Path) -> None:
    import scanpy as sc

    sc.settings.logfile = tmp_path / "said.txt"
    sc.pp.log1p(pred.copy())
    said = (tmp_path / "said.txt").read_text()
    assert "already log-transformed" in said, "the logarithm is not taken twice by mistake"
    axes = sc.pl.embedding(pred, basis="spatial", color="EPCAM", show=False)
    assert axes.collections, "tiles are drawn"


def test_squidpy_goes_on_from_it(pred: anndata.AnnData, tmp_path: Path) -> None:
    import squidpy as sq

    data = pred.copy()
    sq.gr.spatial_neighbors(data, coord_type="grid", n_neighs=8)
    assert data.obsp["spatial_connectivities"].sum(axis=1).max() <= 8
    sq.gr.spatial_autocorr(data, mode="moran", genes=["EPCAM", "VIM"], n_perms=10, n_jobs=1, show_progress_bar=False)
    moran = data.uns["moranI"].loc[["EPCAM", "VIM"], "I"]
    assert np.isfinite(moran).all()
    sq.pl.spatial_scatter(data, color="EPCAM", shape="square", library_id="a", save=tmp_path / "s.png")
    assert (tmp_path / "s.png").stat().st_size > 10_000
