"""`fit` and `predict --reference`: from registered slides to a predictor, and from it to another slide's prediction."""

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import anndata
import dagster as dg
import numpy as np
import pytest
import tifffile

import stpath_assets as sa
from stpath_assets.defs.build import code_location
from stpath_assets.defs.materialize import instance
from stpath_assets.errors import SpotsError
from stpath_assets.evaluation.fitting import refresh_references
from stpath_assets.features import read_features
from stpath_assets.prediction import references
from stpath_assets.prediction.predictors import Reference
from stpath_assets.prediction.references import read_references
from stpath_assets.prediction.stored import read_predicted
from stpath_assets.settings import load_settings
from stpath_assets.storage import Store, maintenance
from tests.asked import ask
from tests.roots import blank, command, copy_home

pytestmark = pytest.mark.usefixtures("same_figures", "blank_pictures")


def test_a_predictor_of_one_phantom_predicts_the_other(demo_home: Path, tmp_path: Path) -> None:
    out, home = tmp_path / "a.npz", tmp_path / "home"
    copy_home(demo_home, home)
    ran = command("fit", "mine", "--slides", "phantom_A", "--genes", "30", "--out", out, "--home", home)
    assert ran.exit_code == 0, ran.output
    assert "ridge:mine: 30 genes, raw_log1p" in ran.stdout
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
        "predict",
        demo_home / "inbox" / "phantom_A.tif",
        "--encoder",
        "demo",
        "--reference",
        out,
        "--out",
        h5ad,
        "--force",
    )
    assert again.exit_code == 1
    assert "phantom_A: ridge:mine was fitted to this slide" in again.stderr


@pytest.mark.parametrize(
    "option", [("--genes", "EPCAM"), ("--organ", "Breast"), ("--tech", "Visium"), ("--spots", "x")]
)
def test_options_of_the_network_are_refused_beside_a_reference(option: tuple[str, str], tmp_path: Path) -> None:
    ran = command("predict", "x.tif", "--reference", tmp_path / "a.npz", "--out", tmp_path / "b.h5ad", *option)
    assert ran.exit_code == 2
    assert "--genes, --organ, --tech and --spots are for STPath" in ran.stderr


@pytest.fixture(scope="module")
def fitted_home(demo_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's root with two predictors, and its slides predicted by one of them."""
    home = tmp_path_factory.mktemp("fitted") / "home"
    copy_home(demo_home, home)
    for slide_id, patient in (("phantom_A", "P"), ("phantom_B", "Q")):
        scan = demo_home / "inbox" / f"{slide_id}.tif"
        assert command("add", scan, "--patient", patient, "--home", home).exit_code == 0
    for model in ("ridge", "knn"):
        ran = command("fit", "mine", "--slides", "cohort", "--model", model, "--genes", "EPCAM,VIM", "--home", home)
        assert ran.exit_code == 0, ran.output
    assert "copies that leave out: patient P, patient Q" in ran.stdout
    with pytest.MonkeyPatch.context() as patch:
        blank(patch)
        ran = command("run", "--models", "stpath,ridge:mine", "--home", home)
    assert ran.exit_code == 0, ran.output
    assert "phantom_B  ridge:mine -" in ran.stdout, ran.stdout
    assert "- by a copy that was fitted without the slide's patient" in ran.stdout
    return home


def test_each_slide_is_predicted_by_what_has_not_seen_its_patient(fitted_home: Path) -> None:
    told = ask(fitted_home, "select distinct slide_id, model, relation from evaluation_metrics order by all")
    assert told == [
        (slide, model, None if model == "stpath-demo" else "patient left out")
        for slide in ("phantom_A", "phantom_B")
        for model in ("depth_only:mine", "mean:mine", "ridge:mine", "stpath-demo")
    ]
    h_and_e = ask(fitted_home, "select distinct model from stpath_predictions where slide_id = 'phantom_C' order by 1")
    assert h_and_e == [("ridge:mine",), ("stpath-demo",)], "baselines are for slides with spots"
    counts = ask(fitted_home, "select count(*), count(distinct tile_id), count(distinct gene) from reference_predictions "
                              "where slide_id = 'phantom_A' and model = 'ridge:mine'")  # fmt: skip
    assert counts[0][0] == counts[0][1] * counts[0][2] == counts[0][1] * 2


def test_a_copy_predicts_what_fitting_to_the_other_slide_alone_predicts(fitted_home: Path) -> None:
    store = Store(fitted_home)
    alone = sa.fit(
        [(read_features(store, "phantom_B"), fitted_home / "inbox" / "phantom_B_counts.tsv.gz")],
        name="b", genes=["EPCAM", "VIM"],
    )  # fmt: skip
    expected = alone.predict(read_features(store, "phantom_A"))
    found = read_predicted(store, "phantom_A", "ridge:mine")
    assert found.genes == ["EPCAM", "VIM"]
    np.testing.assert_allclose(found.values, expected.X, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        found.keys["distance_to_training"], expected.obs["distance_to_training"], rtol=1e-5, atol=1e-5
    )


@pytest.mark.soak
def test_figures_of_fitted_predictors_come_and_go(fitted_home: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    copy_home(fitted_home, home)
    figures = home / "figures" / "phantom_C"
    assert sorted(p.name for p in (figures / "ridge-mine").iterdir()) == ["map_EPCAM.png", "map_VIM.png"]
    assert command("run", "phantom_C", "--models", "knn:mine", "--home", home).exit_code == 0
    assert sorted(p.name for p in figures.iterdir()) == ["knn-mine", "tiles.png"]
    assert ask(home, "select distinct model from stpath_predictions where slide_id = 'phantom_C'") == [("knn:mine",)]
    states = json.loads(command("status", "--json", "--home", home).stdout)[2]
    assert (states["stpath_predictions"], states["reference_predictions"]) == ("–", "current")
    assert command("run", "phantom_C", "--models", "stpath", "--home", home).exit_code == 0
    assert not (figures / "knn-mine").exists()
    assert (figures / "map_EPCAM.png").exists()


def test_without_stpath_slides_with_spots_are_scored(fitted_home: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    copy_home(fitted_home, home)
    ran = command("run", "phantom_A", "--models", "knn:mine", "--home", home)
    assert ran.exit_code == 0, ran.output
    assert ask(home, "select distinct model from evaluation_metrics where slide_id = 'phantom_A' order by 1") == [
        ("depth_only:mine",),
        ("knn:mine",),
        ("mean:mine",),
    ]
    assert {p.name.partition("_")[0] for p in (home / "figures" / "phantom_A").iterdir()} == {
        "compare", "knn-mine", "page", "ranks", "scatter", "tiles.png"
    }  # fmt: skip


def test_a_predictor_is_fitted_again_if_its_slides_change(fitted_home: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    copy_home(fitted_home, home)
    store = Store(home)
    assert refresh_references(store) == {"knn:mine": False, "ridge:mine": False}
    assert maintenance.maintain(store, timedelta(0), timedelta(0), timedelta(0)).removed >= 0
    assert all(store.objects.exists(r.file) for r in read_references(store)), "maintain keeps them"
    assert command("retire", "phantom_B", "--home", home).exit_code == 0
    ran = command("fit", "mine", "--slides", "cohort", "--genes", "EPCAM,VIM", "--home", home)
    assert ran.exit_code == 0, ran.output
    assert "fitted to 132 spots of phantom_A" in ran.stdout
    states = json.loads(command("status", "--json", "--home", home).stdout)
    assert states[0]["reference_predictions"] == "–", "its only slide; the refusal is said by run"
    assert states[2]["reference_predictions"].startswith("outdated: references")
    ran = command("run", "--home", home)
    assert ran.exit_code == 0, ran.output
    assert "note: phantom_A: ridge:mine was fitted to this slide, and has no copy without it" in ran.stderr


def test_a_job_in_dagster_fits_again(fitted_home: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    copy_home(fitted_home, home)
    with instance(load_settings(home)) as opened:
        told = opened.fetch_materializations(dg.AssetKey("reference_models"), limit=9).records
        assert [r.asset_materialization.metadata["fitted_now"].value for r in told] == [1, 1]
        config = {"resources": {"settings": {"config": {"home": str(home)}}}}
        ran = code_location().resolve_job_def("fit_references").execute_in_process(run_config=config, instance=opened)
        (event,) = ran.asset_materializations_for_node("reference_models")
    assert event.metadata["fitted_now"].value == 0
    version = event.tags["dagster/data_version"]
    assert version == told[0].asset_materialization.tags["dagster/data_version"]


def test_a_copy_of_a_training_slide_is_refused(fitted_home: Path, tmp_path: Path) -> None:
    """The same pixels in a file with another hash, under another name, of a patient that nobody named."""
    home = tmp_path / "home"
    copy_home(fitted_home, home)
    scan = tmp_path / "other.tif"
    scan.write_bytes((home / "inbox" / "phantom_A.tif").read_bytes() + b"\0")
    assert command("add", scan, "--home", home, "--organ", "Breast", "--tech", "Visium").exit_code == 0
    ran = command("run", "other", "--models", "ridge:mine", "--encoder", "demo", "--home", home)
    assert ran.exit_code == 1
    (said,) = [line for line in ran.stderr.splitlines() if line.startswith("error")]
    assert "other: most of its tiles are those that ridge:mine was fitted to" in said


def test_a_slide_unlike_the_training_slides_is_said(fitted_home: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    copy_home(fitted_home, home)
    brown = tifffile.imread(home / "inbox" / "phantom_C.tif")[:3000, :3000, [0, 2, 1]]
    tifffile.imwrite(tmp_path / "brown.tif", brown, tile=(256, 256), photometric="rgb")
    assert command("add", tmp_path / "brown.tif", "--mpp", "0.5", "--home", home).exit_code == 0
    ran = command("run", "brown", "--models", "ridge:mine", "--encoder", "demo", "--home", home)
    assert ran.exit_code == 0, ran.output
    assert "note: brown: its tiles are unlike those that ridge:mine was fitted to (median distance" in ran.stderr


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


@pytest.mark.soak
@pytest.mark.parametrize(
    ("spoil", "words", "left_out", "slide_id"),
    [(cut_off, "is damaged", "", "phantom_C"), (Path.unlink, "is gone", "patient P", "phantom_A")],
)
def test_a_damaged_predictor_is_said_and_fitted_again(
    fitted_home: Path, tmp_path: Path, spoil: Callable[[Path], None], words: str, left_out: str, slide_id: str
) -> None:
    home = tmp_path / "home"
    copy_home(fitted_home, home)
    store = Store(home)
    (one,) = [r for r in read_references(store) if (r.model, r.left_out) == ("knn:mine", left_out)]
    spoil(store.objects.local(one.file))
    references._loaded.clear()  # as in a new process
    ran = command("run", slide_id, "--models", "knn:mine", "--home", home)
    assert ran.exit_code == 1
    assert f"{words}; fit it again: stpath-assets fit mine" in ran.stderr
    again = command("fit", "mine", "--slides", "cohort", "--model", "knn", "--genes", "EPCAM,VIM", "--home", home)
    assert (again.exit_code, "not fitted again" in again.stdout) == (0, False), again.output
    assert command("run", slide_id, "--models", "knn:mine", "--home", home).exit_code == 0


def test_one_predictor_that_cannot_be_fitted_costs_the_others_nothing(fitted_home: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    copy_home(fitted_home, home)
    assert command("fit", "both", "--slides", "phantom_A,phantom_B", "--genes", "EPCAM", "--home", home).exit_code == 0
    assert command("retire", "phantom_B", "--home", home).exit_code == 0
    store = Store(home)
    with pytest.raises(SpotsError, match=r"^ridge:both: phantom_B: is retired"):
        refresh_references(store)
    slides = {r.model: r.slides for r in read_references(store) if not r.left_out}
    assert slides == {
        "ridge:both": ("phantom_A", "phantom_B"),
        "ridge:mine": ("phantom_A",),
        "knn:mine": ("phantom_A",),
    }


def test_two_kinds_of_one_name_are_fitted_to_the_same(fitted_home: Path) -> None:
    ran = command(
        "fit", "mine", "--slides", "phantom_A", "--model", "mean", "--genes", "EPCAM,VIM", "--home", fitted_home
    )
    assert ran.exit_code == 1
    assert (
        "was fitted to other slides, genes or another scale than mean:mine is to be; choose another name" in ran.stderr
    )


def test_spots_that_do_not_fit_their_scan_are_not_fitted_to(demo_home: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    copy_home(demo_home, home)
    Store(home).lake.transact(lambda c: c.execute("update lake.parts.spot_registration set verdict = 'suspect'"))
    ran = command("fit", "m2", "--slides", "phantom_A", "--home", home)
    assert ran.exit_code == 1
    assert "phantom_A: its spots may not belong to the scan (spot_registration); leave it out" in ran.stderr
    ran = command("fit", "m2", "--slides", "cohort", "--home", home)
    assert ran.exit_code == 1
    assert "no slide has features and measured spots to fit to" in ran.stderr


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
    assert read_references(Store(demo_home)) == []
