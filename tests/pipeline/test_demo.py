"""`stpath-assets demo` does the whole main job, and what it leaves is what a user looks at."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from stpath_assets.slides import Registry
from stpath_assets.storage import Store
from stpath_assets.tables import PART_TABLES


def test_it_prints_results_and_what_to_try(demo) -> None:
    home, ran = demo
    assert ran.exit_code == 0, ran.stderr
    assert "Traceback" not in ran.stderr
    for word in (
        "phantom_A",
        "phantom_B",
        "phantom_C",
        "r cp10k",
        "model stpath-demo",
        str(home / "figures"),
        " sql --home",
        f"view phantom_B --home {home}",
        "make dev",
    ):
        assert word in ran.stdout


def test_the_held_out_phantom_is_predicted(demo_home: Path, sa) -> None:
    query = (
        "select count(*) n, avg(pearson_r) r, min(n_spots) spots from evaluation_metrics where slide_id = 'phantom_B' "
        "and protocol = 'tutorial:raw_log1p'"
    )
    row = json.loads(sa("sql", query, "--home", demo_home, "--format", "json").stdout)[0]
    assert row["n"] >= 190
    assert row["spots"] > 100
    assert row["r"] > 0.3


def test_every_table_has_every_slide_and_says_demo(demo_home: Path, sa) -> None:
    store = Store(demo_home)
    measured = ["phantom_A", "phantom_B"]
    imported = {t for t in PART_TABLES if t.startswith("imported_")}
    for name in {"slides", "lineage", *PART_TABLES} - {"reference_predictions", "context_predictions"} - imported:
        of_spots = "spot" in name or name in (
            "evaluation_metrics",
            "model_comparison",
            "gene_matches",
            "prediction_errors",
        )
        assert store.slide_ids(name) == (measured if of_spots else [*measured, "phantom_C"])
    query = "select distinct model from stpath_predictions union all select distinct encoder from gigapath_features"
    assert sorted(sa("sql", query, "--home", demo_home, "--format", "csv").stdout.split()) == [
        "demo",
        "model",
        "stpath-demo",
    ]


def test_one_prediction_a_tile_and_gene(demo_home: Path, sa) -> None:
    query = """select p.slide_id, count(*) n, count(distinct (p.tile_id, p.gene)) d, any_value(t.n) tiles
               from stpath_predictions p join (select slide_id, count(*) n from tile_grids group by 1) t using (slide_id)
               group by 1"""
    rows = json.loads(sa("sql", query, "--home", demo_home, "--format", "json").stdout)
    assert len(rows) == 3
    assert all(r["n"] == r["d"] == 200 * r["tiles"] for r in rows)


def test_a_slide_without_spots_has_no_metrics(demo_home: Path) -> None:
    store = Store(demo_home)
    assert store.row_count("evaluation_metrics", "phantom_C") == 0
    assert store.row_count("spot_expression", "phantom_C") == 0
    assert store.row_count("evaluation_metrics", "phantom_B") == 2 * 200, "a row a gene and protocol"


def test_figures_are_pictures_of_the_slides(demo_home: Path) -> None:
    maps = sorted((demo_home / "figures" / "phantom_B").glob("*.png"))
    assert {"map_EPCAM.png", "scatter_EPCAM.png", "compare_EPCAM.png"} <= {p.name for p in maps}
    assert not list((demo_home / "figures" / "phantom_C").glob("scatter_*"))
    with Image.open(demo_home / "figures" / "phantom_B" / "map_EPCAM.png") as picture:
        assert min(picture.size) > 300
        assert len(picture.convert("RGB").getcolors(1 << 20) or [0] * 1000) > 200


def test_the_scale_of_a_scan_does_not_change_its_tiles(demo_home: Path) -> None:
    registry, store = Registry(Store(demo_home)), Store(demo_home)
    assert registry.get("phantom_B").mpp == pytest.approx(0.25)
    for slide_id, mpp in (("phantom_A", 0.5), ("phantom_B", 0.25)):
        side = store.read("tile_grids", slide_id)["side_px"][0].as_py()
        assert side * mpp == pytest.approx(112)


@pytest.mark.usefixtures("same_figures")
def test_a_second_demo_computes_nothing_anew(demo_home: Path, sa, tmp_path: Path) -> None:
    home = tmp_path / "copy"
    shutil.copytree(demo_home, home)
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in (home / "tables").rglob("*.parquet")}
    # The scans are read where they lie; a copied root still points to those of the first one.
    ran = sa("run", "--home", home)
    assert ran.exit_code == 0, ran.stderr
    assert {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in before} == before


def test_it_reaches_nothing_outside(demo_home: Path) -> None:
    assert json.loads((demo_home.parent / "network.json").read_text()) == []
