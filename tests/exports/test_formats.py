"""Each format is read back by the library that reads it elsewhere, and holds what the lake has."""

import json
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import tifffile

import stpath_assets as sa
from stpath_assets.cli.export import FORMS
from stpath_assets.exports import FORMATS
from stpath_assets.slides import Registry
from stpath_assets.spots import read_spots
from stpath_assets.storage import Store
from tests.roots import command

GENES = ["VIM", "EPCAM"]


@pytest.fixture
def prediction(finished_home: Path) -> anndata.AnnData:
    return sa.read_prediction("a", home=finished_home)[:, GENES].copy()


def export(home: Path, out: Path, *more: str) -> Path:
    ran = command("export", "a", "--home", home, "--out", out, "--genes", ",".join(GENES), *more)
    assert ran.exit_code == 0, ran.stderr
    assert ran.stdout == f"{out}\n"
    assert [p.name for p in out.parent.iterdir() if p.name.startswith(f".{out.name}")] == [], "no draft stays"
    return out


def test_h5ad_has_the_genes_in_the_order_asked_for(
    finished_home: Path, prediction: anndata.AnnData, tmp_path: Path
) -> None:
    back = anndata.read_h5ad(export(finished_home, tmp_path / "a.h5ad"))
    assert list(back.var_names) == GENES
    np.testing.assert_array_equal(back.X, prediction.X)
    pd.testing.assert_frame_equal(back.obs.astype(str), prediction.obs.astype(str))
    assert back.uns["histo"]["expression"] == "predicted, log1p"


@pytest.mark.parametrize("image", ["reference", "copy"])
def test_spatialdata(finished_home: Path, prediction: anndata.AnnData, tmp_path: Path, image: str) -> None:
    import spatialdata

    back = spatialdata.read_zarr(export(finished_home, tmp_path / "a.zarr", "--image", image))
    table, tiles = back["predictions"], back["tiles"]
    np.testing.assert_array_equal(table.X, prediction.X)
    centers = np.stack([tiles.centroid.x, tiles.centroid.y], axis=1)
    np.testing.assert_allclose(centers, prediction.obsm["spatial"])
    joined = spatialdata.match_table_to_element(back, element_name="tiles", table_name="predictions")
    assert list(joined.obs_names) == list(tiles.index), "the table annotates the tiles"
    spots = read_spots(finished_home.parent / "a_counts.tsv")
    np.testing.assert_allclose(np.stack([back["spots"].geometry.x, back["spots"].geometry.y], axis=1), spots.xy_px)
    assert back["measured"].shape == spots.counts.shape
    extent = spatialdata.get_extent(back["scan"], coordinate_system="global")
    np.testing.assert_allclose([extent["x"][1], extent["y"][1]], [1600, 1200], atol=1)
    row = Registry(Store(finished_home)).get("a")
    assert back.attrs["scan"] == {"uri": row.uri, "sha256": row.sha256, "mpp": [0.5, 0.5]}
    if image == "copy":
        pixels = back["scan"].data.compute()
        with row.open() as slide:
            np.testing.assert_array_equal(pixels.transpose(1, 2, 0), slide.read_level(0, 0, 0, 1600, 1200))


@pytest.mark.parametrize("name", ["a.geojson", "a.geojson.gz"])
def test_geojson_for_qupath(finished_home: Path, prediction: anndata.AnnData, tmp_path: Path, name: str) -> None:
    import geopandas

    path = export(finished_home, tmp_path / name)
    if name.endswith(".gz"):
        import gzip

        path = tmp_path / "plain.geojson"
        path.write_bytes(gzip.decompress((tmp_path / name).read_bytes()))
    features = json.loads(path.read_text())["features"]
    assert {f["properties"]["objectType"] for f in features} == {"detection"}
    values = [[f["properties"]["measurements"][f"{gene} (log1p)"] for gene in GENES] for f in features]
    np.testing.assert_allclose(values, prediction.X, rtol=1e-6)
    shapes = geopandas.read_file(path)
    np.testing.assert_allclose(shapes.centroid.x, prediction.obsm["spatial"][:, 0])
    np.testing.assert_allclose(shapes.area, 224.0**2), "tiles of 112 µm on a scan of 0.5 µm/px"


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_csv(finished_home: Path, prediction: anndata.AnnData, tmp_path: Path, name: str) -> None:
    back = pd.read_csv(export(finished_home, tmp_path / name))
    assert list(back.columns) == ["slide_id", "tile_id", "center_x_px", "center_y_px", "model", *GENES]
    np.testing.assert_allclose(back[GENES], prediction.X, rtol=1e-5)
    assert back["tile_id"].tolist() == prediction.obs["tile_id"].tolist()


def test_ome_tiff(finished_home: Path, prediction: anndata.AnnData, tmp_path: Path) -> None:
    with tifffile.TiffFile(export(finished_home, tmp_path / "a.ome.tif")) as back:
        assert back.is_ome
        assert back.series[0].axes == "CYX"
        maps, about = back.asarray(), tifffile.xml2dict(back.ome_metadata)["OME"]["Image"]["Pixels"]
    assert [c["Name"] for c in about["Channel"]] == GENES
    assert (about["PhysicalSizeX"], about["PhysicalSizeXUnit"]) == (112, "µm")
    rows, columns = prediction.obs["array_row"], prediction.obs["array_col"]
    np.testing.assert_array_equal(maps[:, rows, columns].T, prediction.X)
    assert np.isfinite(maps).sum() == prediction.X.size, "no tile, no value"


def test_trident(finished_home: Path, prediction: anndata.AnnData, tmp_path: Path) -> None:
    ran = command("export", "a", "--home", finished_home, "--to", "trident", "--out", tmp_path / "a.h5")
    assert ran.exit_code == 0, ran.stderr
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["features"].shape == (prediction.n_obs, 1536)
        np.testing.assert_allclose(file["coords"][:] + 112, prediction.obsm["spatial"], atol=0.5)


def test_hest(finished_home: Path, prediction: anndata.AnnData, tmp_path: Path) -> None:
    out = export(finished_home, tmp_path / "hest", "--to", "hest")
    measured, spots = anndata.read_h5ad(out / "st" / "a.h5ad"), read_spots(finished_home.parent / "a_counts.tsv")
    np.testing.assert_array_equal(measured.X.toarray(), spots.counts.toarray())
    again = read_spots(out / "st" / "a.h5ad")
    np.testing.assert_array_equal(again.xy_px, spots.xy_px)
    np.testing.assert_array_equal(anndata.read_h5ad(out / "predicted" / "a.h5ad").X, prediction.X)
    row = Registry(Store(finished_home)).get("a")
    with h5py.File(out / "patches" / "a.h5") as file, row.open() as slide:
        assert file["img"].shape == (prediction.n_obs, 224, 224, 3)
        x, y = file["coords"][0]
        np.testing.assert_array_equal(file["img"][0], slide.read_level(0, x, y, 224, 224))
        assert [b.decode() for b in file["barcode"][:, 0]] == prediction.obs["tile_id"].tolist()
    assert json.loads((out / "metadata" / "a.json").read_text())["pixel_size_um_estimated"] == 0.5
    assert (out / "wsis" / "a.tif").resolve() == Path(row.uri).resolve()


@pytest.mark.parametrize(("name", "form"), [("a.h5ad", "h5ad"), ("a.zarr", "spatialdata"), ("hest", "hest")])
def test_nothing_is_overwritten_without_force(finished_home: Path, tmp_path: Path, name: str, form: str) -> None:
    out = tmp_path / name
    if form == "h5ad":
        out.write_text("mine")
    else:
        out.mkdir()
        (out / "mine").write_text("mine")
    given = ("export", "a", "--home", finished_home, "--to", form, "--out", out)
    ran = command(*given)
    assert ran.exit_code == 1
    assert "exists already; give --force to replace it" in ran.stderr
    assert (out if form == "h5ad" else out / "mine").read_text() == "mine"
    assert command(*given, "--force").exit_code == 0
    assert form == "h5ad" or not (out / "mine").exists()


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (["--out", "a.xlsx"], "its ending names no format; give --to h5ad, spatialdata"),
        (["--out", "a.csv", "--to", "h5ad"], "an AnnData file ends in .h5ad; name it so"),
        (["--out", "no/a.h5ad"], "does not exist; make it first"),
        (["--out", "a.h5ad", "--image", "copy"], "h5ad holds no scan"),
        (["--out", "a.h5ad", "--genes", "TP53"], "a: TP53: not among its 2 predicted genes"),
        (["--out", "a.h5ad", "--model", "ridge:x"], "no prediction by ridge:x; there are stpath-demo"),
    ],
)
def test_a_wrong_export_is_one_line_and_leaves_nothing(
    finished_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: list[str], why: str
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    ran = command("export", "a", "--home", finished_home, *given)
    assert ran.exit_code == 1
    assert why in ran.stderr
    assert ran.stderr.count("\n") == 1
    assert list((tmp_path / "here").iterdir()) == []


def test_the_command_offers_every_format() -> None:
    assert tuple(FORMATS) == FORMS, "listed again there, so that --help loads nothing"


def test_an_unknown_slide_is_said_before_any_work(finished_home: Path, tmp_path: Path) -> None:
    for name in FORMATS:
        out = tmp_path / f"b{(FORMATS[name].suffixes or [''])[0]}"
        ran = command("export", "b", "--home", finished_home, "--to", name, "--out", out)
        assert "b: no such slide here" in ran.stderr


def test_an_export_that_breaks_leaves_the_old_folder(
    finished_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stpath_assets.exports import hest

    out = tmp_path / "hest"
    out.mkdir()
    (out / "old").touch()

    def fail(*_: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(hest, "_write_patches", fail)
    ran = command("export", "a", "--home", finished_home, "--to", "hest", "--out", out, "--force")
    assert isinstance(ran.exception, RuntimeError)
    assert [p.name for p in out.iterdir()] == ["old"]
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".hest")] == []
