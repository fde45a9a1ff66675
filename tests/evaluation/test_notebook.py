"""`sa.evaluate` and `sa.plot`: the same scores as the platform's, and errors in one line."""

from pathlib import Path

import numpy as np
import pytest

import stpath_assets as sa
from stpath_assets.demo import write_phantom
from stpath_assets.errors import SpotsError, VocabularyError
from stpath_assets.storage import Store
from stpath_assets.tables import EVALUATION_METRICS
from tests.roots import blank, command

GENES = ["CD74", "EPCAM", "ERBB2"]


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    written = write_phantom(tmp_path_factory.mktemp("phantom"), "phantom_B")
    return written.slide, written.spots


@pytest.fixture(scope="module")
def pred(phantom: tuple[Path, Path]) -> object:
    with sa.open_slide(phantom[0]) as slide:
        features = sa.embed(sa.tile(slide, tile_px=224, mpp=0.5), model="demo", batch_size=16)
    return sa.predict_expression(features, organ="Breast", tech="Visium", genes=GENES)


def test_scores_are_those_of_the_platform(
    pred: object, phantom: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blank(monkeypatch)
    home, (scan, spots) = tmp_path / "home", phantom
    told = ("--organ", "Breast", "--tech", "Visium", "--spots", spots)
    assert command("add", scan, "--home", home, *told).exit_code == 0
    assert command("run", "--home", home, "--encoder", "demo", "--genes", ",".join(GENES)).exit_code == 0
    stored = Store(home).read(EVALUATION_METRICS.name, "phantom_B").to_pandas().set_index(["gene", "protocol"])
    found = sa.evaluate(pred, spots).set_index(["gene", "protocol"])
    assert sorted(found.columns) == sorted(stored.columns)
    assert set(found.index) == set(stored.index)
    assert found["slide_id"].unique().tolist() == ["phantom_B"]
    assert found["model"].unique().tolist() == ["stpath-demo"]
    numbers = [name for name in found.columns if found[name].dtype.kind == "f" and name != "noise_ceiling"]
    assert "r_beyond_depth" in numbers
    np.testing.assert_allclose(found[numbers], stored.loc[found.index, numbers], rtol=1e-4)


def test_a_gene_is_drawn_beside_its_measurement(pred: object, phantom: tuple[Path, Path]) -> None:
    measured, predicted, _ = sa.plot(pred, "EPCAM", phantom[1]).axes
    assert "measured" in measured.get_title()
    assert len(measured.collections[0].get_offsets()) > 100
    assert len(predicted.collections[0].get_paths()) > 50
    alone, _ = sa.plot(pred, "EPCAM").axes
    assert "demo weights, not biology" in alone.get_title()


def test_several_genes_are_drawn_on_one_page(pred: object, phantom: tuple[Path, Path]) -> None:
    figure = sa.plot(pred, ["EPCAM", "ERBB2"], phantom[1])
    drawn = [axes for axes in figure.axes if axes.collections]
    assert [axes.get_title() for axes in drawn] == ["EPCAM", "ERBB2", "", ""], "measured above predicted"
    assert "measured, log1p of counts per 10,000, above predicted by stpath-demo" in " ".join(
        figure.get_suptitle().split()
    )
    without = sa.plot(pred, ["EPCAM", "ERBB2"])
    assert len([axes for axes in without.axes if axes.collections]) == 2
    assert "demo weights, not biology" in without.get_suptitle()


def test_what_cannot_be_scored_or_drawn_is_said(pred: object, phantom: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(VocabularyError, match=r"^NOTCH9: not among the 3 predicted genes"):
        sa.plot(pred, "NOTCH9")
    (tmp_path / "far_counts.tsv").write_text("\tEPCAM\n1x1\t3\n")
    (tmp_path / "far_selection.tsv").write_text("x\ty\tnew_x\tnew_y\tpixel_x\tpixel_y\tselected\n1\t1\t1\t1\t9\t9\t1\n")
    with pytest.raises(SpotsError, match=r"^none of the 1 spots lies on a tile"):
        sa.evaluate(pred, tmp_path / "far_counts.tsv")
    with pytest.raises(SpotsError, match=r"^ERBB2: not measured"):
        sa.plot(pred, "ERBB2", tmp_path / "far_counts.tsv")


def test_a_notebook_shows_the_figure(pred: object) -> None:
    png = sa.plot(pred, "EPCAM")._repr_png_()  # type: ignore[attr-defined]
    assert png.startswith(b"\x89PNG")
