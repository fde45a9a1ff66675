"""The command line as a script or a person meets it: exit codes, one-line errors, forms of output."""

import io
import json
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import polars as pl
import pytest
from click.testing import CliRunner

from stpath_assets.cli import main
from stpath_assets.storage import Store
from tests.roots import command as sa

COMMANDS = ("demo", "add", "run", "predict", "sql", "export", "retire", "status")


@pytest.fixture
def home(finished: Path) -> Path:
    """A data root with one slide, brought up to date for two genes. Not to be changed by a test."""
    return finished / "home"


def test_help_names_every_command() -> None:
    text = sa("--help").output
    assert all(c in text for c in COMMANDS)
    for command in COMMANDS:
        assert "--home" in sa(command, "--help").output


@pytest.mark.parametrize("arguments", [["nosuch"], ["add"], ["import"], ["export", "x"], ["run", "--encoder", "uni"]])
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    assert sa(*arguments).exit_code == 2


def test_add_says_what_it_registered(drawn_slide: Path, tmp_path: Path) -> None:
    ran = sa("add", drawn_slide, "--home", tmp_path / "h", "--organ", "BREAST", "--tech", "st")
    assert ran.exit_code == 0
    assert ran.stdout.startswith("drawn: 1600 x 1200 px, 0.5 µm/px (file), Breast, Spatial Transcriptomics")


def test_add_goes_on_after_a_bad_scan(drawn_slide: Path, tmp_path: Path) -> None:
    text = tmp_path / "notes.svs"
    text.write_text("not a slide")
    ran = sa("add", text, tmp_path / "absent.svs", drawn_slide, "--home", tmp_path / "h")
    assert ran.exit_code == 1
    assert "drawn" in ran.stdout
    assert [line.split(":")[0] for line in ran.stderr.splitlines()] == ["error", "error"]
    assert "notes.svs" in ran.stderr
    assert "absent.svs" in ran.stderr


def test_a_scale_that_contradicts_the_file_is_told(drawn_slide: Path, tmp_path: Path) -> None:
    ran = sa("add", drawn_slide, "--home", tmp_path / "h", "--mpp", "0.25")
    assert ran.exit_code == 0
    assert "contradicts the file's 0.5" in ran.stderr
    assert "0.25 µm/px (user)" in ran.stdout


def test_a_scale_of_x_and_y(drawn_slide: Path, tmp_path: Path) -> None:
    ran = sa("add", drawn_slide, "--home", tmp_path / "h", "--mpp", "0.5,0.4")
    assert ran.exit_code == 0
    assert "0.5 by 0.4 µm/px (user)" in ran.stdout
    assert "pixels are not square" in ran.stderr


@pytest.mark.parametrize("value", ["half", "0.5,", "0.5,0.5,0.5", "0.5x0.4", ""])
def test_what_is_no_scale(drawn_slide: Path, tmp_path: Path, value: str) -> None:
    ran = sa("add", drawn_slide, "--home", tmp_path / "h", "--mpp", value)
    assert ran.exit_code == 2
    assert "is not a scale; give µm per pixel, or X,Y" in " ".join(ran.stderr.split())


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--organ", "brest", "Breast"),
        ("--tech", "CosMx", "Xenium"),
        ("--mpp", "264", "µm per pixel"),
        ("--id", "../x", "letters"),
    ],
)
def test_add_refuses_with_the_remedy(drawn_slide: Path, tmp_path: Path, option: str, value: str, words: str) -> None:
    ran = sa("add", drawn_slide, "--home", tmp_path / "h", option, value)
    assert ran.exit_code == 1
    assert len(ran.stderr.splitlines()) == 1
    assert words in ran.stderr
    assert not (tmp_path / "h" / "tables" / "slides").exists()


def test_adding_again_keeps_what_is_not_given(drawn_slide: Path, tmp_path: Path) -> None:
    sa("add", drawn_slide, "--home", tmp_path / "h", "--organ", "breast", "--mpp", "0.52")
    ran = sa("add", drawn_slide, "--home", tmp_path / "h", "--tech", "visium")
    assert "0.52 µm/px (user), Breast, Visium" in ran.stdout


def test_sql_in_every_form(home: Path) -> None:
    query = "select slide_id, gene, count(*) n from stpath_predictions group by all order by gene"
    rows = json.loads(sa("sql", query, "--home", home, "--format", "json").stdout)
    assert [r["gene"] for r in rows] == ["EPCAM", "VIM"]
    assert pl.read_csv(io.StringIO(sa("sql", query, "--home", home, "--format", "csv").stdout)).to_dicts() == rows
    none = [
        sa("sql", "select * from slides where slide_id = 'x'", "--home", home, "--format", form)
        for form in ("json", "csv")
    ]
    assert (json.loads(none[0].stdout), len(none[1].stdout.splitlines())) == ([], 1), "no row is no error"
    assert "0 rows" in sa("sql", "select slide_id from slides where slide_id = 'x'", "--home", home).stdout
    stored = CliRunner().invoke(main, ["sql", query, "--home", str(home), "--format", "parquet"]).stdout_bytes
    assert pl.read_parquet(io.BytesIO(stored)).to_dicts() == rows
    assert "EPCAM" in sa("sql", query, "--home", home).stdout


@pytest.mark.parametrize("query", ["drop view slides", "select nope from slides", "selekt 1", "select 1; select 2", ""])
def test_sql_refuses_in_one_line(home: Path, query: str) -> None:
    ran = sa("sql", query, "--home", home)
    assert ran.exit_code == 1
    assert ran.stderr.startswith("error: ")
    assert len(ran.stderr.splitlines()) == 1


def test_export_and_predict_write_the_same_prediction(home: Path, tmp_path: Path) -> None:
    scan = json.loads(sa("sql", "select uri from slides", "--home", home, "--format", "json").stdout)[0]["uri"]
    assert sa("export", "a", "--to", "h5ad", "--out", tmp_path / "a.h5ad", "--home", home).exit_code == 0
    told = ["--encoder", "demo", "--organ", "Breast", "--tech", "Visium", "--genes", "EPCAM,VIM"]
    assert sa("predict", scan, "--out", tmp_path / "b.h5ad", "--home", home, *told).exit_code == 0
    a, b = (anndata.read_h5ad(tmp_path / n) for n in ("a.h5ad", "b.h5ad"))
    for data in (a, b):
        assert data.X.dtype == np.float32
        assert list(data.var_names) == ["EPCAM", "VIM"]
        assert list(data.obs.columns) == ["tile_id", "library_id", "array_row", "array_col"]
        assert set(data.obs["library_id"]) == {"a"}
        assert data.obsm["spatial"].shape == (data.n_obs, 2)
        assert data.uns["histo"]["method"] == "stpath"
        assert data.uns["histo"]["fm_backbone"] == "demo"
        assert data.uns["histo"]["organ"] == "Breast"
        assert len(data.uns["histo"]["stpath_weights_sha256"]) == 64
    np.testing.assert_array_equal(a.obsm["spatial"], b.obsm["spatial"])
    pd.testing.assert_frame_equal(a.obs, b.obs)
    pd.testing.assert_frame_equal(a.var, b.var)
    np.testing.assert_array_equal(a.uns["spatial"]["a"]["images"]["hires"], b.uns["spatial"]["a"]["images"]["hires"])
    np.testing.assert_allclose(a.X, b.X, atol=1e-5)


def test_predict_keeps_the_order_of_the_genes(home: Path, tmp_path: Path, drawn_slide: Path) -> None:
    assert (
        sa(
            "predict", drawn_slide, "--out", tmp_path / "x.h5ad", "--encoder", "demo", "--genes", "VIM,CD74,EPCAM"
        ).exit_code
        == 0
    )
    assert list(anndata.read_h5ad(tmp_path / "x.h5ad").var_names) == ["VIM", "CD74", "EPCAM"]


def test_predict_tells_what_is_odd_about_the_scan(drawn_slide: Path, tmp_path: Path) -> None:
    ran = sa(
        "predict", drawn_slide, "--out", tmp_path / "x.h5ad", "--encoder", "demo", "--genes", "VIM", "--mpp", "0.55"
    )
    assert ran.exit_code == 0
    assert "note: drawn.tif: the given mpp 0.55 contradicts the file's 0.5" in ran.stderr


def test_predict_leaves_no_file_when_it_fails(drawn_slide: Path, tmp_path: Path) -> None:
    ran = sa("predict", drawn_slide, "--out", tmp_path / "x.h5ad", "--encoder", "demo", "--genes", "NOSUCH")
    assert ran.exit_code == 1
    assert len(ran.stderr.splitlines()) == 1
    assert not (tmp_path / "x.h5ad").exists()


def test_retire_takes_a_slide_out(drawn_slide: Path, tmp_path: Path) -> None:
    home = tmp_path / "h"
    sa("add", drawn_slide, "--home", home)
    assert sa("retire", "drawn", "--reason", "blurred", "--home", home).exit_code == 0
    assert json.loads(sa("status", "--home", home, "--json").stdout)[0]["status"] == "retired"
    ran = sa("run", "drawn", "--encoder", "demo", "--home", home)
    assert ran.exit_code == 1
    assert "retired" in ran.stderr
    assert sa("add", drawn_slide, "--home", home).exit_code == 0
    assert json.loads(sa("status", "--home", home, "--json").stdout)[0]["status"] == "ready"


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    ran = sa("export", "nosuch", "--to", "h5ad", "--out", tmp_path / "x.h5ad", "--home", tmp_path / "h", "--debug")
    assert ran.exception is not None
    assert "no such data root" in str(ran.exception)


def test_an_empty_root_says_what_to_do(tmp_path: Path) -> None:
    assert "stpath-assets add" in sa("status", "--home", tmp_path / "h").stderr
    Store(tmp_path / "h").create()
    assert "stpath-assets add" in sa("status", "--home", tmp_path / "h").stdout
    assert "stpath-assets add" in sa("run", "--encoder", "demo", "--home", tmp_path / "h").stderr
