"""What a notebook sees: short reprs, HTML, a list of all names, and an answer to the tutorial's other names."""

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

import stpath_assets as sa
from stpath_assets.catalog import open_catalog
from stpath_assets.features import Features
from stpath_assets.settings import load_settings

GENES = ["VIM", "EPCAM", "CD74"]


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> tuple[sa.slides.Slide, sa.tiles.Tiles, Features]:
    from tests.conftest import tissue_image, write_tiff

    slide = sa.open_slide(write_tiff(tmp_path_factory.mktemp("calls") / "a <b>.tif", tissue_image()))
    tiles = sa.tile(slide)
    return slide, tiles, sa.embed(tiles, model="demo")


def test_all_names_are_listed() -> None:
    assert set(dir(sa)) == set(sa.__all__)
    assert {
        "open_slide",
        "tile",
        "embed",
        "predict_expression",
        "read_prediction",
        "evaluate",
        "plot",
        "catalog",
    } <= set(dir(sa))
    for name in sa.__all__:
        assert getattr(sa, name) is not None


def test_reprs_are_one_line(steps: tuple) -> None:
    assert [repr(step) for step in steps] == [
        "<slide a <b>.tif: 1600 × 1200 px, 0.5 µm/px (file), 1 levels>",
        "<11 tiles of a_b_: 224 px at 0.5 µm/px>",
        "<features of a_b_: 11 tiles × 1536 by demo>",
    ]


def test_html_has_a_small_picture_and_no_markup_of_names(steps: tuple) -> None:
    slide, tiles, features = (step._repr_html_() for step in steps)
    assert "data:image/jpeg;base64," in slide
    assert "data:image/jpeg;base64," in tiles
    assert "a &lt;b&gt;.tif" in slide
    assert "<b>.tif" not in slide
    assert max(map(len, (slide, tiles, features))) < 70_000
    assert "demo" in features


def test_a_closed_slide_still_has_html(slide_of: object, tmp_path: Path) -> None:
    from tests.conftest import tissue_image, write_tiff

    with sa.open_slide(write_tiff(tmp_path / "c.tif", tissue_image())) as slide:
        pass
    assert "c.tif" in slide._repr_html_()


@pytest.mark.parametrize(
    ("call", "argument", "why"),
    [
        ("tile", "tile_key", "each call returns its result"),
        ("embed", "num_workers", "as many threads as there are cores"),
        ("embed", "weight_path", "STPATH_GIGAPATH_WEIGHTS"),
        ("embed", "hf_token", "HF_TOKEN"),
        ("predict_expression", "method", "is STPath; other predictors are made by sa.fit"),
        ("predict_expression", "weight_path", "STPATH_WEIGHTS"),
        ("predict_expression", "fm_backbone", "`model` of sa.embed"),
        ("predict_expression", "device", "STPATH_DEVICE"),
    ],
)
def test_arguments_of_the_tutorial_are_answered(steps: tuple, call: str, argument: str, why: str) -> None:
    first = dict(zip(("tile", "embed", "predict_expression"), steps, strict=True))[call]
    with pytest.raises(TypeError, match=rf"{call}\(\) has no argument {argument}=: ") as raised:
        getattr(sa, call)(first, **{argument: "x"})
    assert why in str(raised.value)


def test_a_step_that_is_left_out_is_said(steps: tuple) -> None:
    with pytest.raises(TypeError, match=r"embed\(\) takes the Tiles that sa.tile returns, not Slide"):
        sa.embed(steps[0])
    with pytest.raises(TypeError, match=r"takes the Features that sa.embed returns, not Tiles"):
        sa.predict_expression(steps[1])


def test_names_of_the_tutorial_are_answered() -> None:
    with pytest.raises(AttributeError, match="no attribute 'open_wsi'; its name is open_slide"):
        sa.open_wsi  # noqa: B018


def test_the_anndata_carries_what_others_need(steps: tuple) -> None:
    features = steps[2]
    pred = sa.predict_expression(features, organ="Breast", tech="Visium", genes=GENES)
    assert list(pred.var_names) == GENES, "as asked"
    assert pred.var["gene_ids"].str.fullmatch(r"DEMOG\d{11}").all()
    assert pred.var["reliability_r"].isna().all(), "nothing was scored yet"
    assert (pred.var["reliability_patients"] == 0).all()
    assert pred.obs[["array_row", "array_col"]].drop_duplicates().shape[0] == pred.n_obs
    assert pred.uns["histo"]["expression"] == "predicted, log1p"
    of_slide = pred.uns["spatial"]["a_b_"]
    hires, factors = of_slide["images"]["hires"], of_slide["scalefactors"]
    assert hires.shape == (768, 1024, 3)
    assert factors["spot_diameter_fullres"] == 224
    assert factors["tissue_hires_scalef"] == pytest.approx(1024 / 1600)
    x, y = (pred.obsm["spatial"][0] * factors["tissue_hires_scalef"]).astype(int)
    assert hires[y, x].mean() < 215, "a tile's centre lies on tissue in the picture"


def test_a_scan_that_is_gone_costs_the_picture_and_is_said(steps: tuple) -> None:
    from dataclasses import replace

    features = replace(steps[2], uri="/nowhere/a.tif")
    with pytest.warns(UserWarning, match=r"a_b_: no picture of the slide is in uns\['spatial'\]: .*no such file"):
        pred = sa.predict_expression(features, genes=["VIM"])
    assert pred.uns["spatial"]["a_b_"]["images"] == {}


def test_the_lake_gives_the_same_object(finished_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STPATH_HOME", str(finished_home))
    monkeypatch.setenv("STPATH_ENCODER", "demo")
    slide = sa.open_slide(finished_home.parent / "a.tif")
    straight = sa.predict_expression(
        sa.embed(sa.tile(slide), model="demo"), organ="Breast", tech="Visium", genes=["EPCAM", "VIM"]
    )
    stored = sa.read_prediction("a")
    np.testing.assert_allclose(stored.X, straight.X, atol=1e-6)
    pd.testing.assert_frame_equal(stored.obs, straight.obs)
    pd.testing.assert_frame_equal(stored.var, straight.var)
    assert stored.uns.keys() == straight.uns.keys()
    np.testing.assert_array_equal(
        stored.uns["spatial"]["a"]["images"]["hires"], straight.uns["spatial"]["a"]["images"]["hires"]
    )
    assert {k: v for k, v in straight.uns["histo"].items() if k != "device"} == dict(stored.uns["histo"])


def test_reliability_comes_from_the_catalog(finished_home: Path) -> None:
    pred = sa.read_prediction("a", home=finished_home)
    with open_catalog(finished_home) as catalog:
        known = dict(
            catalog.sql("select gene, r from gene_reliability where protocol = 'tutorial:raw_log1p'").fetchall()
        )
    assert known
    for gene, r in known.items():
        assert pred.var.loc[gene, "reliability_r"] == pytest.approx(r)
        assert pred.var.loc[gene, "reliability_patients"] == 1
    assert load_settings(finished_home).home == finished_home


def test_an_anndata_keeps_all_of_it_in_a_file(steps: tuple, tmp_path: Path) -> None:
    pred = sa.predict_expression(steps[2], organ="Breast", genes=GENES)
    pred.write_h5ad(tmp_path / "a.h5ad")
    back = anndata.read_h5ad(tmp_path / "a.h5ad")
    pd.testing.assert_frame_equal(back.var, pred.var)
    np.testing.assert_array_equal(
        back.uns["spatial"]["a_b_"]["images"]["hires"], pred.uns["spatial"]["a_b_"]["images"]["hires"]
    )
    assert "log1p" in back.uns


def test_a_lake_that_cannot_be_asked_is_said_and_costs_nothing_else(steps: tuple, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "lake.sqlite").write_text("no lake")
    with pytest.warns(UserWarning, match="how reliable genes are is not known: .*lake.sqlite"):
        pred = sa.predict_expression(steps[2], organ="Breast", genes=GENES)
    assert pred.var["reliability_r"].isna().all()
