"""`fit` and `predict --reference`: from registered slides to a predictor, and from it to another slide's prediction."""

import shutil
from pathlib import Path

import anndata
import pytest

import stpath_assets as sa
from stpath_assets.prediction.predictors import Reference
from stpath_assets.storage import Store
from tests.roots import command


def test_a_predictor_of_one_phantom_predicts_the_other(demo_home: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.npz"
    ran = command("fit", "mine", "--slides", "phantom_A", "--genes", "30", "--out", out, "--home", demo_home)
    assert ran.exit_code == 0, ran.output
    assert "ridge:mine, 30 genes, raw_log1p" in ran.stdout
    assert "132 spots of phantom_A; patients: not known" in ran.stdout
    assert Reference.load(out).about.encoder == "demo"
    scan = demo_home / "inbox" / "phantom_B.tif"
    h5ad = tmp_path / "b.h5ad"
    ran = command("predict", scan, "--encoder", "demo", "--reference", out, "--out", h5ad)
    assert ran.exit_code == 0, ran.output
    assert "98 tiles, ridge:mine" in ran.stdout
    scores = sa.evaluate(anndata.read_h5ad(h5ad), demo_home / "inbox" / "phantom_B_counts.tsv.gz")
    assert scores["pearson_r"].mean() > 0.3
    assert set(scores["model"]) == {"ridge:mine"}
    again = command(
        "predict", demo_home / "inbox" / "phantom_A.tif", "--encoder", "demo", "--reference", out, "--out", h5ad
    )
    assert again.exit_code == 1
    assert "phantom_A: ridge:mine was fitted to this slide" in again.stderr


@pytest.mark.parametrize("option", [("--genes", "EPCAM"), ("--organ", "Breast"), ("--tech", "Visium")])
def test_options_of_the_network_are_refused_beside_a_reference(option: tuple[str, str], tmp_path: Path) -> None:
    ran = command("predict", "x.tif", "--reference", tmp_path / "a.npz", "--out", tmp_path / "b.h5ad", *option)
    assert ran.exit_code == 2
    assert "--genes, --organ and --tech are for STPath" in ran.stderr


def test_the_file_lies_in_the_data_root_unless_told_otherwise(demo_home: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(demo_home, home)
    ran = command(
        "fit", "m1", "--slides", "phantom_A,phantom_B", "--model", "knn", "--genes", "EPCAM,VIM", "--home", home
    )
    assert ran.exit_code == 0, ran.output
    about = Reference.load(home / "models" / "m1.npz").about
    assert (about.genes, about.slides, about.spots) == (["EPCAM", "VIM"], ["phantom_A", "phantom_B"], 258)
    Store(home).lake.transact(lambda c: c.execute("update lake.parts.spot_registration set verdict = 'suspect'"))
    ran = command("fit", "m2", "--slides", "phantom_A", "--home", home)
    assert ran.exit_code == 1
    assert "phantom_A: its spots may not belong to the scan (spot_registration); leave it out" in ran.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--slides", "phantom_C"], "phantom_C: has no measured spots to fit to"),
        (["--slides", "phantom_A", "--genes", "top5:x_counts.tsv"], "x_counts.tsv"),
        (["--slides", "phantom_A", "--model", "forest"], "models are ridge, knn, depth_only, mean"),
        (["--slides", "none"], "none: no such slide here"),
    ],
)
def test_what_cannot_be_fitted_is_one_line(demo_home: Path, arguments: list[str], words: str) -> None:
    ran = command("fit", "m", *arguments, "--home", demo_home)
    assert ran.exit_code == 1
    assert words in ran.stderr
    assert len(ran.stderr.splitlines()) == 1
    assert not (demo_home / "models").exists()
