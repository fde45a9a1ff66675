"""The computed views and macros say what numpy and scipy say of the same values."""

import math
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import scipy
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from stpath_assets.catalog import open_catalog, views
from stpath_assets.catalog.views import MACROS, VIEWS, bring_up, documented
from stpath_assets.errors import QueryError
from stpath_assets.prediction import summaries
from stpath_assets.prediction.summaries import neighbours
from stpath_assets.storage import Home, Store
from stpath_assets.storage.schema import read_about, sql_type
from stpath_assets.storage.stage import insert_rows
from stpath_assets.tables import BULK_EXPRESSION, GENE_SETS
from tests import asked
from tests.catalog.cohorts import GENES, Drawn, draw, make, store_slide
from tests.storage.parts import plain_client

Made = tuple[Store, dict[str, Drawn]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A cohort with gene sets and bulk. Not to be changed by a test."""
    store = Store(tmp_path_factory.mktemp("views") / "root")
    slides = {s.slide_id: s for s in make(store)}
    sets = [
        {"set_name": "TUMOUR", "genes": ["EPCAM", "ERBB2", "ABSENT"], "source": "s.gmt"},
        {"set_name": "IMMUNE", "genes": ["CD3E"], "source": "s.gmt"},
    ]
    bulk = [
        {"patient_id": p, "gene": "ERBB2", "expression_log1p": x, "unit": "tpm", "source": "b.csv"}
        for p, x in (("P1", 3.0), ("P2", 1.0), ("P5", 2.5), ("P9", 7.0))
    ]
    now = {"imported_at": None}

    def work(cursor: Any) -> None:
        rows = pa.Table.from_pylist([s | now for s in sets], GENE_SETS.schema)
        insert_rows(cursor, GENE_SETS, rows)
        insert_rows(cursor, BULK_EXPRESSION, pa.Table.from_pylist(bulk, BULK_EXPRESSION.schema))

    store.lake.transact(work)
    return store, slides


def ask(made: Made, sql: str) -> list[tuple[Any, ...]]:
    return asked.ask(made[0].home, sql)


def breast(made: Made) -> list[Drawn]:
    return [s for s in made[1].values() if s.organ == "Breast"]


def test_a_slides_gene_is_placed_among_its_cohort_and_organ(made: Made) -> None:
    columns = "slide_id, peers, z, percentile, peer_mean, peer_sd, cut, share_above_cut"
    found = ask(made, f"select {columns} from expression_by_slide where gene = 'ERBB2' and slide_id <> 'e' order by 1")
    values = [s.values[:, 2].astype(float) for s in breast(made)]
    means, pooled = np.array([v.mean() for v in values]), np.concatenate(values)
    cut = pooled.mean() + pooled.std(ddof=1)
    for i, (slide_id, peers, z, percentile, mean, sd, at, share) in enumerate(found):
        assert (slide_id, peers) == ("abcd"[i], 4)
        np.testing.assert_allclose(z, (means[i] - means.mean()) / means.std(ddof=1))
        np.testing.assert_allclose(percentile, 100 * (means < means[i]).sum() / 3)
        np.testing.assert_allclose([mean, sd, at], [pooled.mean(), pooled.std(ddof=1), cut])
        # Between two of 41 quantiles, the share is off by less than a step.
        assert abs(share - (values[i] > cut).mean()) <= 1 / 40 + 1 / len(values[i])
    assert (
        ask(made, "select peers, z, percentile from expression_by_slide where slide_id = 'e'") == [(1, None, None)] * 3
    )


def test_a_share_above_a_cut_that_no_tile_or_each_tile_reaches(tmp_path: Path) -> None:
    store = Store(tmp_path / "root")
    low, high = draw("low", 1), draw("high", 2)
    for slide, value in ((low, 0.0), (high, 9.0)):
        slide.values[:] = value
        store_slide(store, slide)
    query = "select slide_id, share_above_cut from expression_by_slide where gene = 'ERBB2' order by 1"
    assert asked.ask(store.home, query) == [("high", 0.0), ("low", 0.0)], "the cut is above 9: half of the tiles are 9"
    store_slide(store, draw("middle", 3))
    ((share,),) = asked.ask(
        store.home, "select share_above_cut from expression_by_slide where gene = 'ERBB2' and slide_id = 'high'"
    )
    assert share == 1.0


def test_tiles_have_their_place_and_quality(made: Made) -> None:
    a = made[1]["a"]
    columns = "tile_id, expression_log1p, center_x_px, center_y_px, side_px, tissue_fraction"
    found = ask(made, f"select {columns} from tile_expression where slide_id = 'a' and gene = 'CD3E' order by 1")
    expected = sorted(
        (t, float(v), x, y, 448.0, float(f))
        for t, v, (x, y), f in zip(a.tiles, a.values[:, 0], a.xy, np.linspace(0.5, 1, len(a.xy)), strict=True)
    )
    assert found == expected
    mapped = ask(
        made, "select tile_id, expression_log1p, center_x_px, center_y_px from gene_map('a', 'CD3E') order by 1"
    )
    assert mapped == [row[:4] for row in found]


def test_a_panel_has_a_column_a_gene_in_the_order_asked_for(made: Made) -> None:
    b = made[1]["b"]
    rows = asked.ask_arrow(
        made[0].home, "from gene_panel(['ERBB2', 'CD3E', 'ERBB2']) where slide_id = 'b' order by tile_id"
    )
    assert rows.column_names == ["slide_id", "model", "tile_id", "ERBB2", "CD3E"]
    order = np.argsort(b.tiles)
    np.testing.assert_array_equal(rows["ERBB2"].to_numpy(), b.values[order, 2])
    np.testing.assert_array_equal(rows["CD3E"].to_numpy(), b.values[order, 0])
    with pytest.warns(UserWarning, match="there is no gene"):
        odd = asked.ask_arrow(made[0].home, """select * from gene_panel(['CD3E', 'a"b''c\\d']) limit 1""")
    assert odd.column_names[3:] == ["CD3E", "a\"b'c\\d"]


def test_a_pair_of_genes(made: Made) -> None:
    found = {
        row[0]: row[1:]
        for row in ask(
            made,
            "select slide_id, tiles, r, above_a, above_b, above_both, log2_enrichment from gene_pair('EPCAM', 'ERBB2')",
        )
    }
    pooled = [np.concatenate([s.values[:, g] for s in breast(made)]).astype(float) for g in (1, 2)]
    cuts = [p.mean() + p.std(ddof=1) for p in pooled]
    for s in breast(made):
        a, b = s.values[:, 1].astype(float), s.values[:, 2].astype(float)
        tiles, r, above_a, above_b, both, enriched = found[s.slide_id]
        assert tiles == len(a)
        np.testing.assert_allclose(r, np.corrcoef(a, b)[0, 1], rtol=1e-5)
        np.testing.assert_allclose(
            [above_a, above_b, both],
            [(a > cuts[0]).mean(), (b > cuts[1]).mean(), ((a > cuts[0]) & (b > cuts[1])).mean()],
        )
        assert (enriched is None) == (both == 0)
        if both:
            np.testing.assert_allclose(enriched, math.log2(both / above_a / above_b))


def around(slide: Drawn) -> np.ndarray:
    return neighbours(slide.xy).toarray().astype(bool)


def test_neighbours_are_as_near_as_those_of_morans_i() -> None:
    assert views.NEAR == summaries.NEAR, "written twice, so that SQL starts without scipy"


@pytest.mark.parametrize("slide_id", ["a", "b", "c", "d"])
def test_neighbours_in_the_grid_are_those_of_morans_i(made: Made, slide_id: str) -> None:
    slide = made[1][slide_id]
    found = ask(made, f"select tile_id, neighbour_id, distance_um from tile_neighbours('{slide_id}')")
    ids = np.array(slide.tiles)
    expected = {(ids[i], ids[j]) for i, j in np.argwhere(around(slide))}
    assert {(t, n) for t, n, _ in found} == expected
    assert len(found) == len(expected)
    where = dict(zip(slide.tiles, slide.xy, strict=True))
    for tile, neighbour, um in found:
        np.testing.assert_allclose(um, np.hypot(*(where[tile] - where[neighbour])) * 0.25)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sets(st.tuples(st.integers(0, 7), st.integers(0, 5)), min_size=1, max_size=30),
    st.sampled_from([0.5, 1.0, 3.0]),
)
def test_neighbours_at_any_stride_and_in_any_shape(
    empty_store: Store, places: set[tuple[int, int]], stride: float
) -> None:
    xy = np.array(sorted(places), float) * (448.0 * stride) + 224.0
    apart = scipy.spatial.distance.squareform(scipy.spatial.distance.pdist(xy)) + np.diag([np.inf] * len(xy))
    # Whether two tiles at exactly the limit are near is a matter of rounding.
    assume(len(xy) < 2 or not np.isclose(apart, views.NEAR * np.median(apart.min(axis=1))).any())
    slide = replace(draw(f"s{uuid.uuid4().hex}", 1), xy=xy, values=np.zeros((len(xy), 3), np.float32))
    store_slide(empty_store, replace(slide, features=np.zeros((len(xy), 1536), np.float32)))
    found = asked.ask(empty_store.home, f"select tile_id, neighbour_id from tile_neighbours('{slide.slide_id}')")
    assert set(found) == {(slide.tiles[i], slide.tiles[j]) for i, j in np.argwhere(neighbours(xy).toarray())}


def test_hotspots_are_getis_and_ords(made: Made) -> None:
    a = made[1]["a"]
    found = {t: (mean, z) for t, mean, z in ask(made, "select tile_id, around, gi_z from hotspots('a', 'ERBB2')")}
    x, w = a.values[:, 2].astype(float), around(a) | np.eye(len(a.xy), dtype=bool)
    n, s, k = len(x), x.std(), w.sum(axis=1)
    expected = (w @ x - k * x.mean()) / (s * np.sqrt((n * k - k**2) / (n - 1)))
    for i, tile in enumerate(a.tiles):
        np.testing.assert_allclose(found[tile], (x[w[i]].mean(), expected[i]), rtol=1e-6)
    order = [z for (z,) in ask(made, "select gi_z from hotspots('a', 'ERBB2')")]
    assert order == sorted(order, reverse=True)


def test_the_nearest_tiles_by_features_of_the_same_encoder(made: Made) -> None:
    _store, slides = made
    tile, of = slides["a"].tiles[3], slides["a"].features[3]
    found = ask(made, f"from neighbours('a', '{tile}', k := 5)")
    others = [
        (s.slide_id, t, float(f @ of / np.linalg.norm(f) / np.linalg.norm(of)))
        for s in slides.values() for t, f in zip(s.tiles, s.features, strict=True) if s.encoder == "demo"
    ]  # fmt: skip
    expected = sorted((o for o in others if o[:2] != ("a", tile)), key=lambda o: -o[2])[:5]
    assert [f[:2] for f in found] == [e[:2] for e in expected]
    np.testing.assert_allclose([f[2] for f in found], [e[2] for e in expected], atol=1e-6)
    assert len(ask(made, f"from neighbours('a', '{tile}')")) == 20


def test_a_signature_is_the_mean_z_of_its_genes(made: Made) -> None:
    pooled = np.concatenate([s.values for s in breast(made)]).astype(float)
    mean, sd = pooled.mean(axis=0), pooled.std(axis=0, ddof=1)
    scores = {(s, t): (x, n, size) for s, _, t, x, n, size in ask(made, "from signature_score('TUMOUR')")}
    for slide in breast(made):
        z = (slide.values.astype(float) - mean) / sd
        for i, tile in enumerate(slide.tiles):
            x, n, size = scores[slide.slide_id, tile]
            assert (n, size) == (2, 3), "one gene of the set was not predicted"
            np.testing.assert_allclose(x, z[i, 1:].mean(), rtol=1e-6)
    by_slide = dict(ask(made, "select slide_id, score from signature_by_slide where set_name = 'TUMOUR'"))
    for slide_id, score in by_slide.items():
        np.testing.assert_allclose(
            score, np.mean([x for (s, _), (x, _, _) in scores.items() if s == slide_id]), atol=1e-12
        )


def test_a_tiles_genes_come_by_what_is_unusual_in_it(made: Made) -> None:
    b = made[1]["b"]
    pooled = np.concatenate([s.values for s in breast(made)]).astype(float)
    z = (b.values[2].astype(float) - pooled.mean(axis=0)) / pooled.std(axis=0, ddof=1)
    found = ask(made, f"select gene, z from tile_genes('b', '{b.tiles[2]}')")
    assert [g for g, _ in found] == [GENES[i] for i in np.argsort(-z)]
    np.testing.assert_allclose([x for _, x in found], sorted(z, reverse=True), rtol=1e-6)


def test_patients_are_means_of_their_tiles(made: Made) -> None:
    a, c = made[1]["a"], made[1]["c"]
    found = {
        (p, o): row
        for p, o, *row in ask(
            made,
            "select patient_id, organ, slides, tiles, mean, patients, z from patient_expression where gene = 'EPCAM'",
        )
    }
    assert set(found) == {("P1", "Breast"), ("P2", "Breast"), ("P5", "Lung")}, "d has no patient"
    both = np.concatenate([a.values[:, 1], c.values[:, 1]]).astype(float)
    two = np.array([both.mean(), made[1]["b"].values[:, 1].astype(float).mean()])
    slides, tiles, mean, patients, z = found["P1", "Breast"]
    assert (slides, tiles, patients) == (2, len(both), 2)
    np.testing.assert_allclose([mean, z], [two[0], (two[0] - two.mean()) / two.std(ddof=1)])
    assert found["P5", "Lung"][-1] is None


def test_pseudobulk_against_bulk(made: Made) -> None:
    means = dict(ask(made, "select patient_id, mean from patient_expression where gene = 'ERBB2'"))
    x, y = [means[p] for p in ("P1", "P2", "P5")], [3.0, 1.0, 2.5]
    ((model, unit, n, pearson, spearman),) = ask(
        made, "select model, unit, patients, pearson_r, spearman_r from pseudobulk_vs_bulk"
    )
    assert (model, unit, n) == ("stpath", "tpm", 3)
    np.testing.assert_allclose([pearson, spearman], [np.corrcoef(x, y)[0, 1], scipy.stats.spearmanr(x, y)[0]])


@pytest.mark.parametrize(("batch", "groups"), [("vendor", [("a", "c"), ("b", "d")]), ("site", [("a", "c"), ("b",)])])
def test_a_batch_effect_is_the_share_of_variance_between(made: Made, batch: str, groups: list[tuple[str, ...]]) -> None:
    found = ask(
        made,
        f"select organ, batches, slides, eta2, epsilon2, highest, lowest from batch_effect('{batch}') where gene = 'CD3E'",
    )
    means = [np.array([made[1][s].values[:, 0].astype(float).mean() for s in g]) for g in groups]
    every = np.concatenate(means)
    between = sum(len(m) * (m.mean() - every.mean()) ** 2 for m in means)
    within = sum(((m - m.mean()) ** 2).sum() for m in means)
    ((organ, batches, n, eta2, epsilon2, highest, lowest),) = found
    assert (organ, batches, n) == ("Breast", 2, len(every))
    np.testing.assert_allclose(eta2, between / (between + within))
    np.testing.assert_allclose(epsilon2, (between - within / (len(every) - 2)) / (between + within))
    names = {"vendor": ["aperio", "hamamatsu"], "site": ["A", "B"]}[batch]
    assert [lowest, highest] == [names[i] for i in np.argsort([m.mean() for m in means])]


def test_a_cohort_at_a_glance(made: Made) -> None:
    a = made[1]["a"]
    found = ask(
        made, "select patient_id, organ, tiles, predicted, fitted, measured, failed from cohort where slide_id = 'a'"
    )
    assert found == [("P1", "Breast", len(a.xy), len(a.xy) * 3, None, None, None)]


@given(st.data())
def test_the_share_above_the_cut_never_rises_with_the_cut(data: st.DataObject) -> None:
    from stpath_assets.prediction.summaries import summary_rows

    values = np.array(data.draw(st.lists(st.floats(0, 8, width=32), min_size=2, max_size=30)), np.float32)[:, None]
    rows = summary_rows("a", "stpath", ["G"], values, neighbours(np.zeros((1, 2))))
    quantiles = rows["quantiles"][0].as_py()
    assert quantiles == sorted(quantiles)
    assert (quantiles[0], quantiles[-1]) == (values.min(), values.max())


CALLS = {
    "gene_map": "'a', 'ERBB2'", "tile_genes": "'a', 'T'", "gene_pair": "'EPCAM', 'ERBB2'", "tile_neighbours": "'a'",
    "hotspots": "'a', 'ERBB2'", "neighbours": "'a', 'T'", "signature_score": "'TUMOUR'", "batch_effect": "'vendor'",
}  # fmt: skip


@pytest.mark.parametrize("name", [m for m in MACROS if m != "gene_panel"])
def test_a_macro_has_exactly_its_columns(made: Made, name: str) -> None:
    call = CALLS[name].replace("'T'", f"'{made[1]['a'].tiles[0]}'")
    described = [(row[0], row[1]) for row in ask(made, f"describe select * from {name}({call})")]
    assert described == [(f.name, sql_type(f.type)) for f in MACROS[name].columns]


def test_all_that_can_be_asked_is_documented_in_sql(made: Made) -> None:
    found = ask(made, "select name, column_name from documentation where type <> 'parameter'")
    assert set(found) >= {(d.name, c) for d in documented() for c, _, _ in d.columns}
    views = {name for (name,) in ask(made, "select view_name from duckdb_views() where database_name = 'lake'")}
    assert views <= {name for name, _ in found}
    assert all(meaning for d in documented() for _, _, meaning in d.columns)


def test_no_parameter_of_a_macro_has_the_name_of_a_column() -> None:
    columns = {f.name for v in VIEWS.values() for f in v.columns} | {c for d in documented() for c, _, _ in d.columns}
    # `genes`, a list, is used where no column of the name is.
    assert {n for m in MACROS.values() for n, _, _ in m.parameters} & columns <= {"genes"}


def test_another_client_has_views_and_macros(made: Made) -> None:
    bring_up(made[0])
    client = plain_client(made[0].home)
    assert client.execute("select count(*) from expression_by_slide").fetchall() == [(15,)]
    assert len(client.execute("select * from hotspots('a', 'ERBB2')").fetchall()) == len(made[1]["a"].xy)


def test_views_are_stored_once_and_again_after_an_upgrade(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path / "root")
    store.create()
    snapshots = "select max(snapshot_id) from __ducklake_metadata_lake.ducklake_snapshot"
    before = store.rows(snapshots)
    bring_up(store)
    first = store.rows(snapshots)
    assert first != before
    bring_up(store)
    assert store.rows(snapshots) == first
    monkeypatch.setitem(
        views.VIEWS, "cohort", views.View("cohort", "a slide, shown by a later version", (), "select 1 as one")
    )
    monkeypatch.setattr(views, "_up", {})
    bring_up(store)
    assert asked.ask(store.home, "select * from cohort") == [(1,)]


def test_a_lake_without_them_that_cannot_be_written_is_asked_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "root")
    slides = make(store)
    monkeypatch.setattr(Home, "is_writable", property(lambda home: False))
    assert asked.ask(store.home, "select count(*) from expression_by_slide where gene = 'ERBB2'") == [(5,)]
    assert len(asked.ask(store.home, "from hotspots('a', 'ERBB2')")) == len(slides[0].xy)
    assert asked.ask(store.home, "select count(*) > 300 from documentation") == [(True,)]
    with open_catalog(store.home) as cat:
        assert cat["expression_by_slide"].collect().height == 15
    with store.lake.reading() as cursor:
        assert "views" not in read_about(cursor)


@pytest.mark.parametrize(
    "sql", ["from query('select 1')", "from lake.main.nothing('a')", "from other.gene_map('a', 'b')"]
)
def test_other_table_functions_stay_refused(made: Made, sql: str) -> None:
    with pytest.raises(QueryError):
        ask(made, sql)
