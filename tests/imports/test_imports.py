"""Imports: what a file says is what the catalog has; a wrong file is one line with row and column, and nothing is stored."""

import gzip
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stpath_assets.errors import ImportFileError, SlideError, StpathError
from stpath_assets.imports import (
    import_bulk,
    import_cell_types,
    import_domains,
    import_gene_sets,
    import_predictions,
    import_table,
    remove_predictions,
    remove_table,
)
from stpath_assets.prediction.summaries import neighbours, summary_rows
from stpath_assets.storage import Store, maintenance
from stpath_assets.storage.maintenance import maintain
from tests.asked import ask
from tests.catalog.cohorts import draw, store_slide
from tests.roots import command, copied
from tests.storage.parts import child, files, joined
from tests.storage.test_maintenance import NOW

SLIDES = {"a": draw("a", 1), "b": draw("b", 2), "n": draw("n", 3, patient_id=None)}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("imports") / "root")
    for slide in SLIDES.values():
        store_slide(store, slide)
    return store


@pytest.fixture
def store(root: Store, tmp_path: Path) -> Store:
    return copied(root, tmp_path / "root")


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def refuse(store: Store, work: Callable[[], Any], message: str) -> None:
    """The work fails with one line, and leaves the lake as it was."""
    before = store.rows("select max(snapshot_id) from __ducklake_metadata_lake.ducklake_snapshot")
    with pytest.raises(StpathError, match=message) as error:
        work()
    assert "\n" not in str(error.value)
    assert store.rows("select max(snapshot_id) from __ducklake_metadata_lake.ducklake_snapshot") == before


# ---- gene sets


def test_gene_sets_of_a_gmt_file(store: Store, tmp_path: Path) -> None:
    path = written(tmp_path / "s.gmt", "LUMINAL\thttp://x\tESR1\tPGR\n\nHER2\t\tERBB2\tGRB7\t\n")
    assert import_gene_sets(store, path) == ["LUMINAL", "HER2"]
    found = ask(store.home, "select set_name, description, genes, source from gene_sets order by 1")
    assert found == [("HER2", None, ["ERBB2", "GRB7"], "s.gmt"), ("LUMINAL", "http://x", ["ESR1", "PGR"], "s.gmt")]
    import_gene_sets(store, written(tmp_path / "t.gmt", "HER2\tnew\tERBB2\n"))
    assert ask(store.home, "select set_name, genes from gene_sets order by 1") == [
        ("HER2", ["ERBB2"]),
        ("LUMINAL", ["ESR1", "PGR"]),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "A\tx\tG\nB\tG\n",
            r"row 2: a set is its name, a description and its genes, separated by tabs; this has 2 values",
        ),
        ("A,x,G\n", r"row 1: .* this has 1 value$"),
        ("A\tx\tG\t\tH\n", r"row 1, column 4: '' is no gene symbol"),
        ("A\tx\tG,1.0\n", r"row 1, column 3: 'G,1.0' is no gene symbol"),
        ("A\tx\tG\tH\tG\n", r"row 1, column 5: G stands in column 3 as well"),
        ("A\tx\tG\nA\tx\tH\n", r"row 2, column 1: A stands in row 1 as well"),
        ("", "has no gene set"),
        ("\x1b[31mA\tx\tG H\n", r"row 1, column 3: 'G H' is no gene symbol"),
    ],
)
def test_gmt_files_that_are_wrong(store: Store, tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path / "s.gmt", text)
    refuse(store, lambda: import_gene_sets(store, path), rf"^{path}: {message}")


def test_a_gmt_file_that_is_none(store: Store, tmp_path: Path) -> None:
    (tmp_path / "x.gmt").write_bytes(b"\x89HDF\r\n\xff\xfe")
    refuse(store, lambda: import_gene_sets(store, tmp_path / "x.gmt"), "is not text in UTF-8")
    refuse(store, lambda: import_gene_sets(store, tmp_path / "nothing.gmt"), "No such file or directory")


# ---- tables of the user's own


DAY = "2024-01-01"
CLINICAL = (
    "patient_id,age,months,er,site,visit,note\nP1,61,20.5,true,01,2024-02-01,\nP2,NA,33,false,02,2024-03-01,a;b\n"
)


def test_a_clinical_table_with_its_types(store: Store, tmp_path: Path) -> None:
    columns, notes = import_table(store, "clinical", written(tmp_path / "c.csv", CLINICAL + "P9,5,1,,03,,\n"))
    assert columns[:4] == ["patient_id text", "age whole number", "months number", "er true or false"]
    assert notes == ["1 of 3 patients have no slide, such as P9"]
    assert ask(store.home, "select * from clinical order by 1") == [
        ("P1", 61, 20.5, True, "01", date(2024, 2, 1), None),
        ("P2", None, 33.0, False, "02", date(2024, 3, 1), "a;b"),
        ("P9", 5, 1.0, None, "03", None, None),
    ]
    joined = "select c.age from clinical c join patient_expression p using (patient_id) where gene = 'ERBB2' order by 1"
    assert ask(store.home, joined) == [(61,), (None,)]
    ((key, count, source),) = ask(store.home, "select key, row_count, source from own_tables")
    assert (key, count, source) == ("patient_id", 3, "c.csv")


def test_an_own_table_is_replaced_removed_and_maintained(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_table(store, "clinical", written(tmp_path / "c.csv", CLINICAL))
    import_table(store, "clinical", written(tmp_path / "d.csv", "patient_id,stage\nP1,2\n"))
    assert ask(store.home, "select * from clinical") == [("P1", 2)]
    assert len([f for f in files(store) if f.startswith("own/")]) == 2
    maintain(store, NOW, NOW, NOW)
    assert len([f for f in files(store) if f.startswith("own/")]) == 1, "what no state needs is gone"
    assert ask(store.home, "select * from clinical") == [("P1", 2)]
    remove_table(store, "clinical")
    assert ask(store.home, "select count(*) from own_tables") == [(0,)]
    maintain(store, NOW, NOW, NOW)
    assert [f for f in files(store) if f.startswith("own/")] == []
    refuse(store, lambda: remove_table(store, "clinical"), "clinical: there is no such table")


def test_a_table_by_slide_shows_ready_slides_only(store: Store, tmp_path: Path) -> None:
    import_table(store, "reviewed", written(tmp_path / "r.tsv", "slide_id\tgrade\na\t3\nb\t1\n"))
    store.lake.transact(lambda c: c.execute("update lake.parts.slides set status = 'retired' where slide_id = 'b'"))
    assert ask(store.home, "select * from reviewed") == [("a", 3)]


def test_forms_of_a_table(store: Store, tmp_path: Path) -> None:
    frame = pd.DataFrame({"patient_id": ["P1", "P2"], "age": [61, 48], "arm": ["x", None]})
    frame.to_parquet(tmp_path / "c.parquet")
    import_table(store, "from_parquet", tmp_path / "c.parquet")
    (tmp_path / "c.csv.gz").write_bytes(gzip.compress(frame.to_csv(index=False, sep=";").encode("utf-8-sig")))
    import_table(store, "from_gzip", tmp_path / "c.csv.gz")
    for name in ("from_parquet", "from_gzip"):
        assert ask(store.home, f"select * from {name} order by 1") == [("P1", 61, "x"), ("P2", 48, None)]
    back = ask(
        store.home,
        "select patient_id, age, mean from from_gzip join patient_expression using (patient_id) where gene = 'ERBB2'",
    )
    assert len(back) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("patient_id,age\nP1,5\nP1,6\n", "row 3, column patient_id: P1 stands in row 2 as well; keep one"),
        ("patient_id,age\nP1,5,3\n", "row 2: has 3 values for 2 columns"),
        ("patient_id,age\nP1\n", "row 2: has 1 values for 2 columns"),
        ("patent,age\nP1,5\n", "row 1: needs a column patient_id or slide_id"),
        ("patient_id,slide_id\nP1,a\n", "row 1: has both patient_id and slide_id; say which is the key: --by"),
        ("patient_id,age,age\nP1,5,3\n", "row 1: has two columns age"),
        ("patient_id,\nP1,5\n", "row 1: column 2 has no name"),
        ("patient_id,n\nP1,5\nP2,4\nP3,1_000\nP4,1\nP5,1\n", "row 4, column n: '1_000' is no number"),
        ("patient_id,age\nP1,5\nP2,4\nP3,old\nP4,1\nP5,1\n", "row 4, column age: 'old' is no number, .* --text age"),
        (f"patient_id,day\nP1,{DAY}\nP2,2024-02-30\nP3,{DAY}\nP4,{DAY}\nP5,{DAY}\n", "row 3, column day: .* no date"),
        ("slide_id,age\naa,5\n", "row 2, column slide_id: aa is no registered slide"),
        ("patient_id,age\nP7,5\nP8,6\n", "row 2, column patient_id: P7, as all others, is no patient of a slide"),
        ("patient_id,age\n,5\n", "row 2, column patient_id: is empty"),
        ("patient_id,age\n", "has no rows"),
        ('patient_id,age\nP1,"5\n', "row 2: is not CSV"),
    ],
)  # fmt: skip
def test_tables_that_are_wrong(store: Store, tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path / "c.csv", text)
    refuse(store, lambda: import_table(store, "clinical", path), rf"^{path}: {message}")


@pytest.mark.parametrize(
    "name", ["slides", "expression_by_slide", "hotspots", "select", "x y", "Clinical", "", "a;drop", "documentation"]
)
def test_names_that_a_table_cannot_have(store: Store, tmp_path: Path, name: str) -> None:
    refuse(store, lambda: import_table(store, name, written(tmp_path / "c.csv", CLINICAL)), "name|view|word")


def test_text_that_looks_like_numbers(store: Store, tmp_path: Path) -> None:
    path = written(tmp_path / "c.csv", "patient_id,code\nP1,12\nP2,x\n")
    assert import_table(store, "codes", path, text=("code",))[0] == ["patient_id text", "code text"]
    refuse(store, lambda: import_table(store, "codes", path, text=("cod",)), "has no column cod, which --text names")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    values=st.lists(st.one_of(st.none(), st.integers(-(10**9), 10**9)), min_size=1, max_size=2),
    name=st.sampled_from(["x", "Überleben", "a b", 'q"t']),
)
def test_whole_numbers_come_back(store: Store, tmp_path: Path, values: list[int | None], name: str) -> None:
    frame = pd.DataFrame({"patient_id": ["P1", "P2"][: len(values)], name: pd.array(values, "Int64")})
    frame.to_csv(tmp_path / "c.csv", index=False)
    import_table(store, "numbers", tmp_path / "c.csv")
    assert [row[1] for row in ask(store.home, "select * from numbers order by 1")] == values


# ---- tiles


def domains(store: Store, tmp_path: Path, rows: str, method: str = "kmeans 1") -> int:
    return import_domains(store, written(tmp_path / "d.csv", f"slide_id,tile_id,domain\n{rows}"), method)


def test_domains_are_those_of_the_current_grid(store: Store, tmp_path: Path) -> None:
    one, two, *_ = SLIDES["a"].tiles
    assert domains(store, tmp_path, f"a,{one},tumour\na,{two},stroma\n") == 2
    assert domains(store, tmp_path, f"a,{one},1\n", "leiden") == 1
    assert domains(store, tmp_path, f"a,{one},tumour\n") == 1, "replaces the slide's rows by this method"
    rows = "select slide_id, tile_id, method, domain from tile_domain order by method"
    assert ask(store.home, rows) == [("a", one, "kmeans 1", "tumour"), ("a", one, "leiden", "1")]
    store.lake.transact(
        lambda c: c.execute("update lake.parts.lineage set digest = 'new' where table_name = 'tile_grids'")
    )
    assert ask(store.home, rows) == [], "the tiles are others now"


def test_cell_types(store: Store, tmp_path: Path) -> None:
    tile = SLIDES["b"].tiles[0]
    path = written(
        tmp_path / "c.csv", f"slide_id,tile_id,cell_type,value\nb,{tile},T cell,0.25\nb,{tile},tumour,0.75\n"
    )
    assert import_cell_types(store, path, "hover", "fraction") == 2
    assert ask(store.home, "select cell_type, value, unit from tile_cell_types order by 1") == [
        ("T cell", 0.25, "fraction"),
        ("tumour", 0.75, "fraction"),
    ]
    high = written(tmp_path / "h.csv", f"slide_id,tile_id,cell_type,value\nb,{tile},A,0.6\nb,{tile},B,0.5\n")
    refuse(
        store,
        lambda: import_cell_types(store, high, "hover", "fraction"),
        r"row 3, column value: the fractions of b .* add up to more than 1",
    )
    assert import_cell_types(store, high, "hover", "cells") == 2
    low = written(tmp_path / "l.csv", f"slide_id,tile_id,cell_type,value\nb,{tile},A,-1\n")
    refuse(store, lambda: import_cell_types(store, low, "hover", "cells"), "row 2, column value: -1 is not at least 0")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("slide_id,tile_id,domain\na,T,x\nz,T,x\n", "row 3, column slide_id: z is no registered slide"),
        ("slide_id,tile_id,domain\na,nowhere,x\n", "row 2, column tile_id: nowhere is no tile of a"),
        ("slide_id,tile_id,domain\na,T,x\na,T,y\n", "row 3, column slide_id, tile_id: a .* stands in row 2 as well"),
        ("slide_id,tile_id,domian\na,T,x\n", "row 1: has no column domain; is domian meant"),
        ("slide_id,tile_id,domain,score\na,T,x,1\n", "row 1: unknown column score; the columns are slide_id, tile_id, domain,"),
        ("slide_id,tile_id,domain,probability\na,T,x,1.5\n", "row 2, column probability: 1.5 is not from 0 to 1"),
        ("slide_id,tile_id,domain,probability\na,T,x,high\n", "row 2, column probability: 'high' is no number"),
        ("slide_id,tile_id,domain\na,T,\n", "row 2, column domain: is empty"),
    ],
)  # fmt: skip
def test_domains_that_are_wrong(store: Store, tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path / "d.csv", text.replace("T,", f"{SLIDES['a'].tiles[0]},"))
    refuse(store, lambda: import_domains(store, path, "m"), rf"^{path}: {message}")


# ---- bulk


@pytest.mark.parametrize(
    ("unit", "stored"),
    [("tpm", np.log1p(7.0)), ("log1p_tpm", 7.0), ("log2p1_tpm", 7 * np.log(2)), ("counts", np.log1p(7.0))],
)
def test_bulk_is_stored_as_log1p(store: Store, tmp_path: Path, unit: str, stored: float) -> None:
    assert import_bulk(store, written(tmp_path / "b.csv", "gene,P1,P2\nERBB2,7,0\nESR1,1,2\n"), unit) == []
    found = ask(
        store.home,
        "select patient_id, gene, expression_log1p, unit from bulk_expression where gene = 'ERBB2' order by 1",
    )
    assert [(p, g, u) for p, g, _, u in found] == [(p, "ERBB2", unit.rpartition("_")[2]) for p in ("P1", "P2")]
    np.testing.assert_allclose([x for *_, x, _ in found], [stored, 0])


def test_bulk_in_long_form_replaces_its_patients(store: Store, tmp_path: Path) -> None:
    import_bulk(store, written(tmp_path / "b.csv", "gene,P1,P2\nERBB2,7,0\n"), "tpm")
    notes = import_bulk(store, written(tmp_path / "c.csv", "patient_id,gene,value\nP1,ESR1,3\nP9,ESR1,3\n"), "tpm")
    assert notes == ["1 of 2 patients have no slide, such as P9"]
    assert ask(store.home, "select patient_id, gene from bulk_expression order by all") == [
        ("P1", "ESR1"),
        ("P2", "ERBB2"),
        ("P9", "ESR1"),
    ]


@pytest.mark.parametrize(
    ("text", "unit", "message"),
    [
        ("gene,P1\nERBB2,-1\n", "tpm", "row 2, column P1: -1 is not at least 0"),
        ("gene,P1\nERBB2,x\n", "tpm", "row 2, column P1: 'x' is no number"),
        ("patient_id,gene,value\nP1,ERBB2,900\n", "log1p_tpm", "row 2, column value: 900 is not from 0 to 25"),
        ("gene,P1\nERBB2,1\nERBB2,2\n", "tpm", "row 3, column gene: ERBB2 stands in row 2 as well"),
        (
            "patient_id,gene,value\nP1,ERBB2,1\nP1,ERBB2,1\n",
            "tpm",
            "row 3, column patient_id, gene: P1 ERBB2 stands in row 2",
        ),
        ("gene,X\nERBB2,1\n", "tpm", "column patient_id: X is no patient of a slide"),
        ("symbol,P1\nERBB2,1\n", "tpm", "row 1: has no column gene"),
    ],
)
def test_bulk_that_is_wrong(store: Store, tmp_path: Path, text: str, unit: str, message: str) -> None:
    refuse(store, lambda: import_bulk(store, written(tmp_path / "b.csv", text), unit), message)


# ---- predictions of other tools


def atlas(n: int = 30, genes: tuple[str, ...] = ("ZZZ", "ERBB2", "CD3E"), seed: int = 0) -> anndata.AnnData:
    rng = np.random.default_rng(seed)
    data = anndata.AnnData(
        rng.gamma(1, 1, (n, len(genes))).astype(np.float32), obs=pd.DataFrame(index=[f"t{i}" for i in range(n)]),
        var=pd.DataFrame(index=list(genes)),
    )  # fmt: skip
    data.obsm["spatial"] = rng.uniform(10, 5990, (n, 2))
    return data


def bring(store: Store, path: Path, model: str = "deepspot", unit: str = "log1p", slide: str = "a") -> tuple[int, int]:
    return import_predictions(store, slide, path, model, "CC-BY-NC-4.0", unit)


def test_predictions_of_another_tool_stand_beside_ours(store: Store, tmp_path: Path) -> None:
    data, other = atlas(), atlas(12, ("ERBB2",), 1)
    data.write_h5ad(tmp_path / "d.h5ad")
    other.write_h5ad(tmp_path / "o.h5ad")
    assert bring(store, tmp_path / "d.h5ad") == (30, 3)
    assert bring(store, tmp_path / "o.h5ad", "path2space") == (12, 1)
    found = ask(
        store.home,
        "select model, tile_id, expression_log1p from stpath_predictions where slide_id = 'a' and gene = 'ERBB2'",
    )
    of = {m: {t: x for model, t, x in found if model == m} for m in ("stpath", "deepspot", "path2space")}
    assert of["deepspot"] == dict(zip(data.obs_names, data.X[:, 1].tolist(), strict=True))
    assert of["path2space"] == dict(zip(other.obs_names, other.X[:, 0].tolist(), strict=True))
    assert len(of["stpath"]) == len(SLIDES["a"].xy)
    placed = ask(
        store.home,
        "select tile_id, center_x_px, center_y_px from tile_expression where model = 'deepspot' and gene = 'ZZZ'",
    )
    assert {t: (x, y) for t, x, y in placed} == dict(
        zip(data.obs_names, map(tuple, data.obsm["spatial"].tolist()), strict=True)
    )
    free = "select distinct model from stpath_predictions join imported_models using (slide_id, model) where licence like 'CC%'"
    assert set(ask(store.home, free)) == {("deepspot",), ("path2space",)}
    expected = summary_rows(
        "a", "deepspot", ["CD3E", "ERBB2", "ZZZ"], data.X[:, [2, 1, 0]], neighbours(data.obsm["spatial"])
    )
    summary = ask(
        store.home, "select gene, mean, smoothness from expression_by_slide where model = 'deepspot' order by 1"
    )
    np.testing.assert_allclose(
        [row[1:] for row in summary],
        list(zip(expected["mean"].to_pylist(), expected["smoothness"].to_pylist(), strict=True)),
    )
    assert dict(ask(store.home, "select table_name, row_count from lineage where table_name like 'imported%'")) == {
        "imported_predictions": 30 * 3 + 12, "imported_by_slide": 4, "imported_models": 2,
    }  # fmt: skip


def test_an_import_is_replaced_merged_and_removed(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "LEAST_PARTS", 2)
    atlas().write_h5ad(tmp_path / "d.h5ad")
    for slide in "ab":
        bring(store, tmp_path / "d.h5ad", slide=slide)
        bring(store, tmp_path / "d.h5ad", "other", slide=slide)
    atlas(5).write_h5ad(tmp_path / "e.h5ad")
    bring(store, tmp_path / "e.h5ad")
    counts = "select slide_id, model, count(*) from imported_predictions group by all order by all"
    expected = [("a", "deepspot", 15), ("a", "other", 90), ("b", "deepspot", 90), ("b", "other", 90)]
    assert ask(store.home, counts) == expected
    maintain(store, NOW, NOW, NOW)
    assert ask(store.home, counts) == expected
    remove_predictions(store, "a", "deepspot")
    assert ask(store.home, counts) == expected[1:]
    remove_predictions(store, "a", "other")
    assert ask(store.home, counts) == expected[2:]
    refuse(store, lambda: remove_predictions(store, "a", "other"), "a: has no imported predictions by other")


def test_counts_are_logged_and_a_parquet_of_tiles_by_genes_is_read(store: Store, tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"tile_id": ["x", "y"], "center_x_px": [10.0, 20], "center_y_px": [5.0, 6], "ERBB2": [0, 7], "CD3E": [1, 3]}
    )
    frame.to_parquet(tmp_path / "p.parquet")
    assert bring(store, tmp_path / "p.parquet", unit="counts") == (2, 2)
    found = ask(store.home, "select tile_id, gene, expression_log1p from imported_predictions order by all")
    np.testing.assert_allclose([x for *_, x in found], np.log1p([1, 0, 3, 7]), rtol=1e-6)
    assert [row[:2] for row in found] == [("x", "CD3E"), ("x", "ERBB2"), ("y", "CD3E"), ("y", "ERBB2")]


def spoil(data: anndata.AnnData, how: str) -> anndata.AnnData:
    if how == "counts":
        data.X = np.round(np.minimum(data.X * 4, 14))
    elif how == "not logged":
        data.X[3, 1] = 4000
    elif how == "scaled":
        data.X[3, 1] = -9
    elif how == "nan":
        data.X[3, 1] = np.nan
    elif how == "outside":
        data.obsm["spatial"][2] = (7000, 5)
    elif how == "nowhere":
        del data.obsm["spatial"]
    elif how == "tiles twice":
        data.obs_names = ["t0", *data.obs_names[:-1]]
    elif how == "genes twice":
        data.var_names = ["ERBB2", "ERBB2", "X"]
    return data


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("counts", "whole numbers, so these are counts: --unit counts"),
        ("not logged", "tile t3, gene ERBB2: 4000 is more than 15, so it was not logged; is it --unit counts"),
        ("scaled", "tile t3, gene ERBB2: -9 is less than -5"),
        ("nan", "tile t3, gene ERBB2: nan is no number"),
        ("outside", r"tile t2: its centre 7000, 5 is outside of a \(6000 × 6000\)"),
        ("nowhere", r"has no obsm\['spatial'\]"),
        ("tiles twice", "tile t0 is there twice"),
        ("genes twice", "gene ERBB2 is there twice"),
    ],
)
def test_predictions_that_are_wrong(store: Store, tmp_path: Path, how: str, message: str) -> None:
    path = tmp_path / "d.h5ad"
    spoil(atlas(), how).write_h5ad(path)
    refuse(store, lambda: bring(store, path), message)


def test_predictions_of_no_slide_by_nobody(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "d.h5ad"
    atlas().write_h5ad(path)
    with pytest.raises(SlideError, match="z: no such slide"):
        bring(store, path, slide="z")
    for model in ("stpath", "stpath-demo", "ridge:x", "a b", ""):
        refuse(store, lambda model=model: bring(store, path, model), "is no name of a model")  # type: ignore[misc]
    with pytest.raises(ImportFileError, match="has no licence"):
        import_predictions(store, "a", path, "m", " ", "log1p")
    path.write_bytes(b"not HDF5")
    refuse(store, lambda: bring(store, path), "cannot be read as .h5ad")


def test_a_file_with_parts_elsewhere_is_refused(store: Store, tmp_path: Path) -> None:
    atlas().write_h5ad(tmp_path / "d.h5ad")
    with h5py.File(tmp_path / "d.h5ad", "r+") as file:
        del file["obsm/spatial"]
        file["obsm/spatial"] = h5py.ExternalLink("/etc/passwd", "/")
    refuse(store, lambda: bring(store, tmp_path / "d.h5ad"), "/obsm/spatial lies in another file, which is refused")


def test_hotspots_are_of_each_models_own_tiles(store: Store, tmp_path: Path) -> None:
    data = atlas(30)
    data.obsm["spatial"] = np.stack(np.meshgrid(np.arange(6), np.arange(5)), axis=-1).reshape(-1, 2) * 300.0 + 150
    data.obs_names = [*SLIDES["a"].tiles[:5], *data.obs_names[5:]]  # ids of the grid, elsewhere
    data.write_h5ad(tmp_path / "d.h5ad")
    bring(store, tmp_path / "d.h5ad")
    near = neighbours(data.obsm["spatial"]).toarray().astype(bool) | np.eye(30, dtype=bool)
    x = data.X[:, 1].astype(float)
    found = dict(ask(store.home, "select tile_id, around from hotspots('a', 'ERBB2') where model = 'deepspot'"))
    np.testing.assert_allclose([found[t] for t in data.obs_names], [x[near[i]].mean() for i in range(30)], rtol=1e-6)


def test_an_import_that_is_cut_off_leaves_nothing(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    atlas().write_h5ad(tmp_path / "d.h5ad")
    bring(store, tmp_path / "d.h5ad")
    before = ask(store.home, "select * from imported_predictions order by all")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as m:
        m.setattr("stpath_assets.storage.stage.add_files", full)
        with pytest.raises(OSError, match="No space left"):
            bring(store, tmp_path / "d.h5ad", "other")
    assert ask(store.home, "select * from imported_predictions order by all") == before


def bring_in_a_process(root: Path, path: Path, model: str) -> None:
    bring(Store(root), path, model)


def test_models_that_are_imported_at_once_are_all_there(store: Store, tmp_path: Path) -> None:
    atlas().write_h5ad(tmp_path / "d.h5ad")
    names = [f"model{i}" for i in range(4)]
    assert joined(*(child(bring_in_a_process, store.home, tmp_path / "d.h5ad", name) for name in names)) == [0] * 4
    counts = "select model, count(*) from imported_predictions group by all order by all"
    assert ask(store.home, counts) == [(name, 90) for name in names]


def import_in_a_process(root: Path, path: Path, name: str) -> None:
    import_table(Store(root), name, path)


def test_tables_that_are_imported_at_once_are_all_there(store: Store, tmp_path: Path) -> None:
    written(tmp_path / "c.csv", CLINICAL)
    names = ["clinical", "clinical", "treatment", "followup"]
    assert joined(*(child(import_in_a_process, store.home, tmp_path / "c.csv", name) for name in names)) == [0] * 4
    assert ask(store.home, "select name from own_tables order by 1") == [("clinical",), ("followup",), ("treatment",)]
    assert ask(store.home, "select count(*) from clinical") == [(2,)]


# ---- the command


def test_the_command_says_what_came_in(store: Store, tmp_path: Path) -> None:
    def run(*words: str | Path) -> tuple[int, str]:
        done = command("import", *words, "--home", store.home)
        return done.exit_code, done.output

    assert run("gene-sets", written(tmp_path / "s.gmt", "HER2\tx\tERBB2\n")) == (
        0,
        "1 gene set: select * from signature_score('HER2')\n",
    )
    code, said = run("table", "clinical", written(tmp_path / "c.csv", CLINICAL))
    assert (code, said.splitlines()[0].partition(",")[0]) == (0, "clinical: patient_id text")
    assert run("table", "clinical", "--remove")[0] == 0
    assert run("table", "clinical")[0] == 2
    one = SLIDES["a"].tiles[0]
    path = written(tmp_path / "d.csv", f"slide_id,tile_id,domain\na,{one},x\n")
    assert run("tile-domain", path, "--method", "m") == (0, "1 rows of tile_domain\n")
    path = written(tmp_path / "e.csv", f"slide_id,tile_id,cell_type,value\na,{one},x,1\n")
    assert run("cell-types", path, "--method", "m", "--unit", "cells") == (0, "1 rows of tile_cell_types\n")
    assert run("bulk", written(tmp_path / "b.csv", "gene,P1,P9\nERBB2,7,1\n"), "--unit", "tpm")[1].startswith(
        "note: 1 of 2 patients"
    )
    atlas().write_h5ad(tmp_path / "d.h5ad")
    words = ("predictions", "a", tmp_path / "d.h5ad", "--model", "deepspot", "--licence", "MIT", "--unit", "log1p")
    assert run(*words) == (0, "a: 30 tiles, 3 genes by deepspot\n")
    assert run(*words[:3], "--model", "x")[0] == 2
    assert run("predictions", "a", "--model", "deepspot", "--remove")[0] == 0
    code, said = run("gene-sets", tmp_path / "nothing.gmt")
    assert (code, said.count("\n"), said[:7]) == (1, 1, "error: ")
