"""The catalog's computed views and table macros: what each answers, its columns, and its SQL. All of them are here.

Storage defines a view for each stored table (`tables`). What is computed from several of them, or compares slides, is a `View`;
what needs to be told a slide, a gene or a set is a `Macro`, called in FROM: `from hotspots('a', 'ERBB2')`. `bring_up` stores them
in the lake, so that every DuckDB client has them.

Genes are compared with themselves in other slides, never with other genes of the same tile: that mostly recovers the means that
a model was trained on. A slide's peers are the slides of its cohort and organ; z and percentile are among these.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from stpath_assets.storage import Store
from stpath_assets.storage.home import Home
from stpath_assets.storage.lake import NAME, Cursor, quote
from stpath_assets.storage.schema import ABOUT, READY, create_view, read_about, rows_of_genes, sql_type
from stpath_assets.tables import (
    EXPRESSION_BY_SLIDE,
    FEATURE_DIM,
    IMPORTED_PREDICTIONS,
    MODEL,
    REFERENCE_PREDICTIONS,
    SLIDE_ID,
    STPATH_PREDICTIONS,
    TABLES,
    TILE_CELL_TYPES,
    TILE_DOMAIN,
    TILE_ID,
    Table,
    column,
)


@dataclass(frozen=True)
class View:
    """A view that is computed when it is read. `sql` is None for one that only this program computes, from more than the lake."""

    name: str
    row: str
    columns: tuple[pa.Field, ...]
    sql: str | None


@dataclass(frozen=True)
class Macro:
    """A query with parameters: (name, default or None, description) each. No parameter has the name of a column."""

    name: str
    row: str
    parameters: tuple[tuple[str, str | None, str], ...]
    columns: tuple[pa.Field, ...]
    sql: str

    @property
    def call(self) -> str:
        """How it is called: `neighbours(slide, tile, k := 20)`."""
        return f"{self.name}({', '.join(n if d is None else f'{n} := {d}' for n, d, _ in self.parameters)})"


_GENE = column("gene", pa.string(), "gene symbol")
_ORGAN = column("organ", pa.string(), "organ token of STPath; NULL is its padding token", nullable=True)
_COHORT = column("cohort", pa.string(), "cohort that the slide belongs to, as given", nullable=True)
_OF_SLIDE = ("slide", None, "slide_id")
_OF_GENE = ("gene_symbol", None, "gene symbol")
_CENTER = (
    column("center_x_px", pa.float64(), "centre of the tile, level-0 pixels"),
    column("center_y_px", pa.float64(), "centre of the tile, level-0 pixels"),
)
_VALUE = column("expression_log1p", pa.float32(), "predicted log1p expression")


def _of(table: Table, *names: str) -> tuple[pa.Field, ...]:
    """Return columns of a table's view, all of them if none is named."""
    return tuple(f for f in table.view_columns() if not names or f.name in names)


# `concat` for the reason that `READY` has.
_SUMMARIES = "select * from parts.expression_by_slide union all by name select * from parts.imported_by_slide"
_PEERS = "partition by s.cohort, s.organ, e.gene, e.model"

BY_SLIDE = View(
    EXPRESSION_BY_SLIDE.name,
    EXPRESSION_BY_SLIDE.row,
    (
        *_of(EXPRESSION_BY_SLIDE),
        column("peers", pa.int64(), "slides of the same cohort and organ with the gene by this model, itself included"),
        column(
            "z",
            pa.float64(),
            "`mean` less the mean of the peers' means, over their SD; NULL without two peers",
            nullable=True,
        ),
        column(
            "percentile",
            pa.float64(),
            "share of the other peers with a lower mean, %; NULL without two peers",
            nullable=True,
        ),
        column("peer_mean", pa.float64(), "mean over all tiles of the peers"),
        column("peer_sd", pa.float64(), "standard deviation over all tiles of the peers", nullable=True),
        column(
            "cut", pa.float64(), "`peer_mean` plus `peer_sd`: a tile above it is high in this cohort", nullable=True
        ),
        column(
            "share_above_cut",
            pa.float64(),
            "share of the slide's tiles above `cut`, 0 to 1, from `quantiles`",
            nullable=True,
        ),
    ),
    f"""with of_slides as (
  select e.*, count(*) over peers as peers, avg(e.mean) over peers as middle, stddev_samp(e.mean) over peers as spread,
    percent_rank() over ({_PEERS} order by e.mean) as rank,
    sum(e.tiles) over peers as n, sum(e.tiles * e.mean) over peers as total,
    sum((e.tiles - 1) * e.sd * e.sd + e.tiles * e.mean * e.mean) over peers as square
  from ({_SUMMARIES}) e join parts.slides s using (slide_id) where concat(s.status, '') = 'ready'
  window peers as ({_PEERS})
), pooled as (
  select *, total / n as peer_mean, case when n > 1 then sqrt(greatest(square - total * total / n, 0) / (n - 1)) end as peer_sd
  from of_slides
), placed as (
  select *, peer_mean + peer_sd as cut, len(list_filter(quantiles, lambda q: q <= peer_mean + peer_sd)) as i from pooled
)
select {", ".join(f.name for f in _of(EXPRESSION_BY_SLIDE))}, peers,
  case when peers > 1 and spread > 0 then (mean - middle) / spread end as z,
  case when peers > 1 then 100 * rank end as percentile, peer_mean, peer_sd, cut,
  case when cut is null or quantiles is null then null when i = 0 then 1.0 when i = len(quantiles) then 0.0
    else 1 - (i - 1 + (cut - quantiles[i]) / (quantiles[i + 1] - quantiles[i])) / (len(quantiles) - 1) end::double
    as share_above_cut
from placed""",
)

_PREDICTED = ["slide_id", "tile_id", "gene", "expression_log1p", "model"]

TILE_EXPRESSION = View(
    "tile_expression",
    "a tile's predicted expression of one gene, with its place and quality; tiles that the grid no longer has are left out",
    (
        SLIDE_ID,
        TILE_ID,
        _GENE,
        _VALUE,
        MODEL,
        *_CENTER,
        column(
            "side_px", pa.float64(), "side of the tile on the scan, level-0 pixels; NULL if imported", nullable=True
        ),
        *_of(TABLES["tile_grids"], "tissue_fraction", "pen_fraction", "blank_fraction", "saturation", "focus"),
    ),
    # An inner join, so that a condition on the slide is one on both sides. Imported predictions bring their own places.
    f"""select p.slide_id, p.tile_id, p.gene, p.expression_log1p, p.model, g.center_x_px, g.center_y_px, g.side_px,
  g.tissue_fraction, g.pen_fraction, g.blank_fraction, g.saturation, g.focus
from ({rows_of_genes((STPATH_PREDICTIONS, REFERENCE_PREDICTIONS), _PREDICTED)}) p
join parts.tile_grids g using (slide_id, tile_id)
union all by name ({rows_of_genes((IMPORTED_PREDICTIONS,), [*_PREDICTED, "center_x_px", "center_y_px"])})""",
)


def _one_gene(table: str, keys: str) -> str:
    return (
        f"select slide_id, model, any_value(tile_id) as tile_ids, {keys}, any_value(expression_log1p) as levels "
        f"from parts.{table} where slide_id = slide and (gene is null or gene = gene_symbol) group by slide_id, model"
    )


GENE_MAP = Macro(
    "gene_map",
    "a tile's predicted expression of one gene in one slide, as in `tile_expression`: the fastest way to a map",
    (_OF_SLIDE, _OF_GENE),
    (SLIDE_ID, MODEL, TILE_ID, *_CENTER, _of(TABLES["tile_grids"], "side_px")[0].with_nullable(True), _VALUE),
    # The keys and the gene in one scan of each table; a join of two scans takes twice as long.
    f"""with found as (
  {_one_gene("stpath_predictions", "null::double[] as xs, null::double[] as ys")}
  union all {_one_gene("reference_predictions", "null::double[], null::double[]")}
  union all {_one_gene("imported_predictions", "any_value(center_x_px), any_value(center_y_px)")}
), tiles as (
  select slide_id, model, unnest(tile_ids) as tile_id, unnest(xs) as x, unnest(ys) as y, unnest(levels) as expression_log1p
  from found where levels is not null and slide_id in ({READY})
)
select t.slide_id, t.model, t.tile_id, coalesce(t.x, g.center_x_px) as center_x_px,
  coalesce(t.y, g.center_y_px) as center_y_px, g.side_px, t.expression_log1p
from tiles t left join (select * from parts.tile_grids where slide_id = slide) g on t.tile_id = g.tile_id and t.x is null
where coalesce(t.x, g.center_x_px) is not null""",
)

GENE_PANEL = Macro(
    "gene_panel",
    "a tile, with a column for each gene asked for",
    (("genes", None, "list of gene symbols: `['ERBB2', 'ESR1']`"),),
    (SLIDE_ID, MODEL, TILE_ID, column("…", pa.float32(), "predicted log1p expression of one gene, named by it")),
    # The names of columns must be known before rows are read: JSON is the only way to them from a list.
    """select slide_id, model, tile_id, unnest(json_transform(
  json_group_object(gene, expression_log1p),
  '{' || array_to_string(list_transform(
    list_filter(genes, lambda g, i: list_position(genes, g) = i), lambda g: to_json(g)::varchar || ':"FLOAT"'), ',') || '}'))
from stpath_predictions where list_contains(genes, gene) group by slide_id, model, tile_id""",
)

TILE_GENES = Macro(
    "tile_genes",
    "a gene of one tile, those first that are unusually high there",
    (_OF_SLIDE, ("tile", None, "tile_id")),
    (
        _GENE,
        MODEL,
        _VALUE,
        column(
            "z", pa.float64(), "the same less `peer_mean`, over `peer_sd` (of `expression_by_slide`)", nullable=True
        ),
    ),
    """select p.gene, p.model, p.expression_log1p, (p.expression_log1p - e.peer_mean) / nullif(e.peer_sd, 0) as z
from stpath_predictions p join expression_by_slide e using (slide_id, gene, model)
where p.slide_id = slide and p.tile_id = tile order by z desc nulls last""",
)

GENE_PAIR = Macro(
    "gene_pair",
    "how two genes lie together in a slide, by one model",
    (("gene_a", None, "gene symbol"), ("gene_b", None, "another gene symbol")),
    (
        SLIDE_ID,
        MODEL,
        column("tiles", pa.int64(), "number of tiles"),
        column("r", pa.float64(), "Pearson r of the two over tiles; NULL if either is constant", nullable=True),
        column("above_a", pa.float64(), "share of tiles where the first is above its `cut`, 0 to 1"),
        column("above_b", pa.float64(), "share of tiles where the second is above its `cut`, 0 to 1"),
        column("above_both", pa.float64(), "share of tiles where both are, 0 to 1"),
        column(
            "log2_enrichment",
            pa.float64(),
            "log2 of `above_both` over what chance gives, `above_a` times `above_b`; NULL if 0",
            nullable=True,
        ),
    ),
    """with cuts as (
  select slide_id, model, max(cut) filter (gene = gene_a) as cut_a, max(cut) filter (gene = gene_b) as cut_b
  from expression_by_slide where gene in (gene_a, gene_b) group by all
), tiles as (
  select slide_id, model, tile_id, max(expression_log1p) filter (gene = gene_a) as a,
    max(expression_log1p) filter (gene = gene_b) as b
  from stpath_predictions where gene in (gene_a, gene_b) group by all
), pairs as (
  select slide_id, model, count(*) as tiles, case when stddev_pop(a) > 0 and stddev_pop(b) > 0 then corr(a, b) end as r,
    avg((a > cut_a)::integer) as above_a, avg((b > cut_b)::integer) as above_b,
    avg((a > cut_a and b > cut_b)::integer) as above_both
  from tiles join cuts using (slide_id, model) where a is not null and b is not null group by all
)
select *, case when above_both > 0 then log2(above_both / (above_a * above_b)) end as log2_enrichment from pairs""",
)

NEAR = 1.5
"""As `prediction.summaries.NEAR`: up to this many distances between neighbouring tiles count as near."""

# From tiles(model, tile_id, x, y, side), µm, each model's pairs of tiles that are near each other. Cells are at least twice the
# distance of neighbours, so whoever is near is in one of the nine cells around.
_NEAR = f"""cells as (
  select model, 2 * nullif(greatest(max(side), sqrt((max(x) - min(x)) * (max(y) - min(y)) / count(*)),
    greatest(max(x) - min(x), max(y) - min(y)) / greatest(count(*) - 1, 1)), 0) as cell
  from tiles group by model
), celled as (
  select tiles.*, floor(x / cell)::bigint as cx, floor(y / cell)::bigint as cy from tiles join cells using (model)
), around as (
  select *, cx + dx as kx, cy + dy as ky from celled, (values (-1), (0), (1)) h(dx), (values (-1), (0), (1)) v(dy)
), pairs as (
  select a.model, a.tile_id, b.tile_id as neighbour_id, sqrt((a.x - b.x) ** 2 + (a.y - b.y) ** 2) as distance_um
  from around a join celled b on a.model = b.model and a.kx = b.cx and a.ky = b.cy and a.tile_id <> b.tile_id
), pitches as (
  select model, median(nearest) as pitch
  from (select model, min(distance_um) as nearest from pairs group by model, tile_id) group by model
), near as (
  select pairs.* from pairs join pitches using (model) where distance_um <= {NEAR} * pitch
)"""

TILE_NEIGHBOURS = Macro(
    "tile_neighbours",
    "a tile and one of the tiles around it: in a regular grid, of up to eight",
    (_OF_SLIDE,),
    (
        SLIDE_ID,
        TILE_ID,
        column("neighbour_id", pa.string(), "the other tile"),
        column("distance_um", pa.float64(), "distance of their centres, µm"),
    ),
    f"""with tiles as (
  select '' as model, g.tile_id, center_x_px * coalesce(s.mpp_x, s.mpp) as x, center_y_px * coalesce(s.mpp_y, s.mpp) as y,
    g.side_px * coalesce(s.mpp_x, s.mpp) as side
  from parts.tile_grids g join parts.slides s using (slide_id) where g.slide_id = slide and concat(s.status, '') = 'ready'
), {_NEAR}
select slide as slide_id, tile_id, neighbour_id, distance_um from near order by tile_id, neighbour_id""",
)

HOTSPOTS = Macro(
    "hotspots",
    "a tile of one slide, those first around which a gene is high",
    (_OF_SLIDE, _OF_GENE),
    (
        SLIDE_ID,
        MODEL,
        TILE_ID,
        *_CENTER,
        _VALUE,
        column("around", pa.float64(), "mean of the same over the tile and those around it, as in `tile_neighbours`"),
        column(
            "gi_z",
            pa.float64(),
            "Getis-Ord Gi* (Ord and Getis 1995): how many SDs `around` is from what so many tiles of the slide would have "
            "at random. Predictions are smooth, so many tiles are high: it ranks, it is no test. NULL if constant",
            nullable=True,
        ),
    ),
    # Of each model's own tiles: those of another tool are not in the grid.
    f"""with mapped as (select * from gene_map(slide, gene_symbol)), tiles as (
  select m.model, m.tile_id, m.center_x_px * coalesce(s.mpp_x, s.mpp) as x, m.center_y_px * coalesce(s.mpp_y, s.mpp) as y,
    m.side_px * coalesce(s.mpp_x, s.mpp) as side
  from mapped m join parts.slides s using (slide_id)
), {_NEAR}, with_own as (
  select model, tile_id, neighbour_id from near union all select model, tile_id, tile_id from mapped
), slide_wide as (
  select model, count(*) as n, avg(expression_log1p::double) as m, stddev_pop(expression_log1p::double) as s
  from mapped group by model
), sums as (
  select w.model, w.tile_id, count(*) as w, sum(m.expression_log1p::double) as total
  from with_own w join mapped m on m.model = w.model and m.tile_id = w.neighbour_id group by all
)
select t.slide_id, t.model, t.tile_id, t.center_x_px, t.center_y_px, t.expression_log1p, total / w as around,
  case when s > 0 and n > w then (total - w * m) / (s * sqrt((n * w - w * w) / (n - 1))) end as gi_z
from mapped t join sums using (model, tile_id) join slide_wide using (model) order by gi_z desc nulls last""",
)

NEIGHBOURS = Macro(
    "neighbours",
    "a tile of any slide, those first whose features are most like those of one tile",
    (_OF_SLIDE, ("tile", None, "tile_id"), ("k", "20", "how many")),
    (
        SLIDE_ID,
        TILE_ID,
        column("similarity", pa.float32(), "cosine of the two tiles' features by the same encoder, -1 to 1"),
    ),
    # Similarity first: a join would copy the features. Without a condition on it, which would be computed again.
    f"""with asked as (
  select feature::float[{FEATURE_DIM}] as feature, encoder from parts.gigapath_features where slide_id = slide and tile_id = tile
), compared as (
  select slide_id, tile_id, encoder,
    nullif(array_cosine_similarity(feature::float[{FEATURE_DIM}], (select feature from asked)), 'nan') as similarity
  from parts.gigapath_features
)
select slide_id, tile_id, similarity from compared
where encoder = (select encoder from asked) and (slide_id <> slide or tile_id <> tile)
  and slide_id in ({READY})
order by similarity desc nulls last limit k""",
)

_OF_SET = column("set_name", pa.string(), "name of the set in `gene_sets`")
_SCORE = "mean z of the set's genes: each less `peer_mean`, over `peer_sd` (of `expression_by_slide`)"
_USED = (
    column("genes", pa.int64(), "genes of the set that were predicted and vary"),
    column("set_size", pa.int64(), "genes of the set"),
)

_SIGNATURE_ROWS = rows_of_genes(
    (STPATH_PREDICTIONS, *STPATH_PREDICTIONS.and_of),
    _PREDICTED,
    "gene in (select unnest(genes) from parts.gene_sets where set_name = signature)",
)

SIGNATURE_SCORE = Macro(
    "signature_score",
    "a tile's score of one gene set",
    (("signature", None, "name of a set in `gene_sets`"),),
    (SLIDE_ID, MODEL, TILE_ID, column("score", pa.float64(), _SCORE), *_USED),
    f"""with wanted as (
  select unnest(genes) as gene, len(genes)::bigint as set_size from gene_sets where set_name = signature
)
select p.slide_id, p.model, p.tile_id, avg((p.expression_log1p - e.peer_mean) / e.peer_sd) as score, count(*) as genes,
  any_value(w.set_size) as set_size
from wanted w join expression_by_slide e using (gene) join ({_SIGNATURE_ROWS}) p using (slide_id, gene, model)
where e.peer_sd > 0 group by all""",
)

SIGNATURE_BY_SLIDE = View(
    "signature_by_slide",
    "a slide's score of one gene set: the mean of its tiles' `signature_score`",
    (SLIDE_ID, _OF_SET, MODEL, column("score", pa.float64(), _SCORE), *_USED),
    """select e.slide_id, w.set_name, e.model, avg((e.mean - e.peer_mean) / e.peer_sd) as score, count(*) as genes,
  any_value(w.set_size) as set_size
from (select set_name, unnest(genes) as gene, len(genes)::bigint as set_size from gene_sets) w
join expression_by_slide e using (gene) where e.peer_sd > 0 group by e.slide_id, w.set_name, e.model""",
)

PATIENT_EXPRESSION = View(
    "patient_expression",
    "a patient's predicted expression of one gene, over all tiles of an organ; slides without a patient are left out",
    (
        column("patient_id", pa.string(), "patient, as in `slides`"),
        _ORGAN,
        _COHORT,
        _GENE,
        MODEL,
        column("slides", pa.int64(), "number of slides"),
        column("tiles", pa.int64(), "number of tiles of these"),
        column("mean", pa.float64(), "mean of log1p expression over the tiles"),
        column("patients", pa.int64(), "patients of the same cohort and organ, itself included"),
        column("z", pa.float64(), "`mean` less the mean of these, over their SD; NULL without two", nullable=True),
    ),
    f"""with of_patients as (
  select s.patient_id, s.organ, s.cohort, e.gene, e.model, count(*) as slides, sum(e.tiles)::bigint as tiles,
    sum(e.tiles * e.mean) / sum(e.tiles) as mean
  from ({_SUMMARIES}) e join parts.slides s using (slide_id)
  where s.patient_id is not null and concat(s.status, '') = 'ready' group by all
)
select *, count(*) over peers as patients, (mean - avg(mean) over peers) / nullif(stddev_samp(mean) over peers, 0) as z
from of_patients window peers as (partition by cohort, organ, gene, model)""",
)


def _of_current_grids(table: Table) -> View:
    """Return the view of results of tiles, of those whose grid is current."""
    return View(
        table.name,
        table.row,
        _of(table),
        f"""select t.* from parts.{table.name} t join parts.lineage g
  on t.slide_id = g.slide_id and g.table_name = 'tile_grids' and t.grid = g.digest
where t.slide_id in ({READY})""",
    )


DOMAINS, CELL_TYPES = _of_current_grids(TILE_DOMAIN), _of_current_grids(TILE_CELL_TYPES)

PSEUDOBULK = View(
    "pseudobulk_vs_bulk",
    "how a gene's prediction, averaged over each patient's tiles, follows the bulk measurement across patients",
    (
        _GENE,
        MODEL,
        column("unit", pa.string(), "unit of the bulk measurement before log1p"),
        column("patients", pa.int64(), "patients that have both"),
        column(
            "pearson_r",
            pa.float64(),
            "Pearson r over patients, both log1p; NULL for fewer than 3 or a constant",
            nullable=True,
        ),
        column("spearman_r", pa.float64(), "the same of ranks, ties by their mean rank", nullable=True),
    ),
    """with of_patients as (
  select gene, model, patient_id, sum(tiles * mean) / sum(tiles) as predicted from patient_expression group by all
), pairs as (
  select p.gene, p.model, b.unit, p.predicted as x, b.expression_log1p as y
  from of_patients p join bulk_expression b using (patient_id, gene)
), ranked as (
  select *, rank() over (of_gene order by x) + (count(*) over (partition by gene, model, unit, x) - 1) / 2 as rx,
    rank() over (of_gene order by y) + (count(*) over (partition by gene, model, unit, y) - 1) / 2 as ry
  from pairs window of_gene as (partition by gene, model, unit)
)
select gene, model, unit, count(*) as patients,
  case when count(*) > 2 and stddev_pop(x) > 0 and stddev_pop(y) > 0 then corr(x, y) end as pearson_r,
  case when count(*) > 2 and stddev_pop(rx) > 0 and stddev_pop(ry) > 0 then corr(rx, ry) end as spearman_r
from ranked group by gene, model, unit""",
)

BATCH_EFFECT = Macro(
    "batch_effect",
    "how much of a gene's differences between slides of an organ goes with scanner, site or another batch",
    (("batch", None, "`vendor`, `backend`, `tech`, `cohort`, or a further column of the manifest, such as `site`"),),
    (
        _ORGAN,
        _GENE,
        MODEL,
        column("batches", pa.int64(), "number of batches; there must be two, one of them with two slides"),
        column("slides", pa.int64(), "slides of these"),
        column(
            "eta2",
            pa.float64(),
            "share of the variance of slide means that lies between batches, 0 to 1",
            nullable=True,
        ),
        column(
            "epsilon2",
            pa.float64(),
            "the same less what chance gives (Kelley 1935): near 0, or below, without an effect. Batches may differ in "
            "patients, too",
            nullable=True,
        ),
        column("highest", pa.string(), "batch with the highest mean"),
        column("lowest", pa.string(), "batch with the lowest mean"),
    ),
    """with valued as (
  select s.organ, e.gene, e.model, e.mean, case batch when 'vendor' then s.vendor when 'backend' then s.backend
    when 'tech' then s.tech when 'cohort' then s.cohort
    else json_extract_string(s.more, '$."' || batch || '"') end as level
  from ({0}) e join parts.slides s using (slide_id) where concat(s.status, '') = 'ready'
), of_batches as (
  select organ, gene, model, level, count(*) as n, avg(mean) as m, var_pop(mean) * count(*) as within
  from valued where level is not null group by all
), sums as (
  select organ, gene, model, count(*) as batches, sum(n)::bigint as slides, sum(within) as within,
    sum(n * m * m) - sum(n * m) ** 2 / sum(n) as between, max_by(level, m) as highest, min_by(level, m) as lowest
  from of_batches group by all having count(*) > 1 and sum(n) > count(*)
)
select organ, gene, model, batches, slides, greatest(between, 0) / nullif(between + within, 0) as eta2,
  (between - (batches - 1) * within / (slides - batches)) / nullif(between + within, 0) as epsilon2, highest, lowest
from sums""".replace("({0})", f"({_SUMMARIES})"),
)

COHORT = View(
    "cohort",
    "a slide, with what is known of it and how much was made of it",
    (
        SLIDE_ID,
        _COHORT,
        column("patient_id", pa.string(), "patient that the section is of, as given", nullable=True),
        _ORGAN,
        *_of(TABLES["slides"], "tech", "status"),
        column("tiles", pa.int64(), "tiles of its grid", nullable=True),
        column("predicted", pa.int64(), "values that STPath predicted: tiles times genes", nullable=True),
        column("fitted", pa.int64(), "values that fitted predictors predicted", nullable=True),
        column("imported", pa.int64(), "values imported from other tools", nullable=True),
        column("measured", pa.int64(), "measured counts: spots times genes", nullable=True),
        column("scores", pa.int64(), "rows of `evaluation_metrics`", nullable=True),
        column("spots_fit", pa.string(), "verdict of `spot_registration`", nullable=True),
        column("bytes", pa.int64(), "bytes of all its parts; of a merged file, all of it", nullable=True),
        column("failed", pa.string(), "stages that failed when last tried, with reasons", nullable=True),
    ),
    """with made as (
  select slide_id, max(row_count) filter (table_name = 'tile_grids') as tiles,
    max(row_count) filter (table_name = 'stpath_predictions') as predicted,
    max(row_count) filter (table_name = 'reference_predictions') as fitted,
    max(row_count) filter (table_name = 'imported_predictions') as imported,
    max(row_count) filter (table_name = 'spot_expression') as measured,
    max(row_count) filter (table_name = 'evaluation_metrics') as scores, sum(size_bytes)::bigint as bytes
  from parts.lineage group by slide_id
), failed as (
  select slide_id, string_agg(stage || ': ' || reason, '; ' order by stage) as failed from parts.failures group by slide_id
)
select s.slide_id, s.cohort, s.patient_id, s.organ, s.tech, s.status, tiles, predicted, fitted, imported, measured, scores,
  r.verdict as spots_fit, bytes, failed
from parts.slides s left join made using (slide_id) left join parts.spot_registration r using (slide_id)
left join failed using (slide_id)""",
)

STALE_SLIDES = View(
    "stale_slides",
    "a fact that differs between what a slide's part was made from and what it would be made from now (by this program only)",
    (
        SLIDE_ID,
        column("stage", pa.string(), "stage whose part is not current"),
        column("state", pa.string(), "`outdated`, `failed`, `missing`, `gone` or `replaced`"),
        column("field", pa.string(), "fact that differs", nullable=True),
        column("stored", pa.string(), "JSON: what the part was made from", nullable=True),
        column("expected", pa.string(), "JSON: what it would be made from now", nullable=True),
        column("why", pa.string(), "the same in words, one line", nullable=True),
    ),
    None,
)

_T_975 = (
    "12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, "
    "2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042"
)
"""97.5 % points of Student's t for 1 to 30 degrees of freedom."""

GENE_RELIABILITY = View(
    "gene_reliability",
    "how well a model predicts a gene in an organ, over all patients",
    (
        column("gene", pa.string(), "gene symbol"),
        column("organ", pa.string(), "organ token of STPath; NULL is its padding token", nullable=True),
        MODEL,
        column("protocol", pa.string(), "as in `evaluation_metrics`"),
        column("slides", pa.int64(), "slides with an r for the gene"),
        column("patients", pa.int64(), "patients of these; a slide whose patient is not known counts as one"),
        column("r", pa.float64(), "mean Pearson r: of a patient's slides, then of patients, as Fisher's z"),
        column(
            "r_low",
            pa.float64(),
            "lower end of r's 95 % interval over patients (Student's t of Fisher's z); NULL for one patient",
            nullable=True,
        ),
        column("r_high", pa.float64(), "upper end of the same", nullable=True),
        column("r_beyond_depth", pa.float64(), "mean of `r_beyond_depth`, likewise", nullable=True),
        column("r_depth", pa.float64(), "mean of `r_depth`, likewise", nullable=True),
        column("noise_ceiling", pa.float64(), "mean of `noise_ceiling` over patients", nullable=True),
        column(
            "within_80",
            pa.float64(),
            "a spot of a new patient lies within this of its prediction, log1p, with 80 % (conformal: patients are "
            "exchangeable); NULL for other protocols, and for fewer than 4 patients",
            nullable=True,
        ),
        column("within_95", pa.float64(), "the same with 95 %; NULL for fewer than 19 patients", nullable=True),
    ),
    # Slides whose spots do not fit, and scores that are too good to be true, say nothing of a gene. r of 1 has no z.
    f"""with scored as (
  select m.gene, s.organ, m.model, m.protocol, m.slide_id, coalesce(s.patient_id, '/' || m.slide_id) as patient,
    atanh(greatest(least(m.pearson_r, 1 - 1e-12), 1e-12 - 1)) as z,
    atanh(greatest(least(m.r_beyond_depth, 1 - 1e-12), 1e-12 - 1)) as z_beyond,
    atanh(greatest(least(m.r_depth, 1 - 1e-12), 1e-12 - 1)) as z_depth, m.noise_ceiling
  from evaluation_metrics m join slides s using (slide_id) left join spot_registration f using (slide_id)
  where m.pearson_r is not null and coalesce(f.verdict, 'ok') <> 'suspect' and coalesce(m.relation, '') <> 'same patient'
), of_patients as (
  select gene, organ, model, protocol, patient, count(*) as slides, avg(z) as z, avg(z_beyond) as z_beyond,
    avg(z_depth) as z_depth, avg(noise_ceiling) as noise_ceiling
  from scored group by all
), of_genes as (
  select gene, organ, model, protocol, sum(slides)::bigint as slides, count(*) as patients, avg(z) as z, stddev_samp(z) as sd,
    avg(z_beyond) as z_beyond, avg(z_depth) as z_depth, avg(noise_ceiling) as noise_ceiling
  from of_patients group by all
), reach as (
  select *, case when patients > 1 then sd / sqrt(patients) * ([{_T_975}, 1.96])[least(patients - 1, 31)] end as reach
  from of_genes
), errors as (
  select e.gene, s.organ, e.model, e.protocol, coalesce(s.patient_id, '/' || e.slide_id) as patient, e.quantiles
  from prediction_errors e join slides s using (slide_id)
  semi join scored m on (m.gene, m.model, m.protocol, m.slide_id) = (e.gene, e.model, e.protocol, e.slide_id)
), weighed as (
  select *, 1 / (len(quantiles) * count(*) over (partition by gene, organ, model, protocol, patient)) as weight from errors
), each as (
  select gene, organ, model, protocol, patient, weight, unnest(quantiles) as error from weighed
), ranked as (
  select *, sum(weight) over (partition by gene, organ, model, protocol order by error rows unbounded preceding) as below
  from each
), conformal as (
  select gene, organ, model, protocol, count(distinct patient) as k,
    list(error order by error) as errors, list(below order by error) as belows
  from ranked group by all
), within as (
  select gene, organ, model, protocol,
    list_min([errors[i] for i in range(1, len(errors) + 1) if belows[i] >= 0.8 * (k + 1) - 1e-9]) as within_80,
    list_min([errors[i] for i in range(1, len(errors) + 1) if belows[i] >= 0.95 * (k + 1) - 1e-9]) as within_95
  from conformal
)
select r.gene, r.organ, r.model, r.protocol, slides, patients, tanh(z) as r, tanh(z - reach) as r_low,
  tanh(z + reach) as r_high, tanh(z_beyond) as r_beyond_depth, tanh(z_depth) as r_depth, noise_ceiling,
  within_80::double as within_80, within_95::double as within_95
from reach r left join within w on r.gene = w.gene and r.organ is not distinct from w.organ and r.model = w.model
  and r.protocol = w.protocol""",
)

POOLED_SCORES = View(
    "pooled_scores",
    "a model's scores for one gene over the spots of all slides of an organ, taken apart",
    (
        column("gene", pa.string(), "gene symbol"),
        column("organ", pa.string(), "organ token of STPath; NULL is its padding token", nullable=True),
        MODEL,
        column("protocol", pa.string(), "as in `evaluation_metrics`, with `pooled` in the place of `tutorial`"),
        column("slides", pa.int64(), "slides with a score for the gene"),
        column("spots", pa.int64(), "spots of all of them"),
        column("r_pooled", pa.float64(), "Pearson r over all spots of all slides", nullable=True),
        column("r_within", pa.float64(), "the same, of what differs from the slide's means", nullable=True),
        column("r_between", pa.float64(), "Pearson r of the slides' means, weighed by their spots", nullable=True),
        column(
            "r_slide_means",
            pa.float64(),
            "pooled r of an oracle that knows each slide's mean and nothing else: what `r_pooled` is to be compared with",
            nullable=True,
        ),
    ),
    # Sums over all spots, from each slide's means and standard deviations. A slide whose r is undefined has no covariance.
    """with scored as (
  select m.gene, s.organ, m.model, replace(m.protocol, 'tutorial:', 'pooled:') as protocol, m.n_spots as n,
    mean_predicted as x, mean_measured as y, sd_predicted as sx, sd_measured as sy,
    coalesce(pearson_r, 0) * sd_predicted * sd_measured as sxy
  from evaluation_metrics m join slides s using (slide_id) left join spot_registration f using (slide_id)
  where m.protocol like 'tutorial:%' and m.mean_predicted is not null and coalesce(f.verdict, 'ok') <> 'suspect'
    and coalesce(m.relation, '') <> 'same patient'
), of_genes as (
  select gene, organ, model, protocol, count(*) as slides, sum(n)::bigint as spots, sum(n * x) / sum(n) as mx,
    sum(n * y) / sum(n) as my, sum(n * sx * sx) as wxx, sum(n * sy * sy) as wyy, sum(n * sxy) as wxy,
    sum(n * x * x) as xx, sum(n * y * y) as yy, sum(n * x * y) as xy
  from scored group by all
), parts as (
  select *, greatest(xx - spots * mx * mx, 0) as bxx, greatest(yy - spots * my * my, 0) as byy, xy - spots * mx * my as bxy
  from of_genes
)
select gene, organ, model, protocol, slides, spots,
  case when wxx + bxx > 1e-12 and wyy + byy > 1e-12 then (wxy + bxy) / sqrt((wxx + bxx) * (wyy + byy)) end as r_pooled,
  case when wxx > 1e-12 and wyy > 1e-12 then wxy / sqrt(wxx * wyy) end as r_within,
  case when slides > 2 and bxx > 1e-12 and byy > 1e-12 then bxy / sqrt(bxx * byy) end as r_between,
  case when wyy + byy > 1e-12 then sqrt(byy / (wyy + byy)) end as r_slide_means
from parts""",
)

_DOCUMENTED = (
    column("name", pa.string(), "table, view or macro"),
    column("kind", pa.string(), "`table`, `view` or `macro`"),
    column("row", pa.string(), "what one row of it is"),
    column("column_name", pa.string(), "column, or parameter of a macro"),
    column("type", pa.string(), "its SQL type, or `parameter`"),
    column("meaning", pa.string(), "what it holds, with unit"),
)


@dataclass(frozen=True)
class Documented:
    """A table, view or macro as it is documented: its columns as (name, SQL type, meaning)."""

    name: str
    kind: str
    call: str
    row: str
    columns: tuple[tuple[str, str, str], ...]
    parameters: tuple[tuple[str, str | None, str], ...] = ()
    table: Table | None = None


def documented() -> list[Documented]:
    """Return all tables, views and macros."""
    tables = [
        Documented(t.name, "table", t.name, t.row, _columns(t.view_columns()), table=t)
        for t in TABLES.values()
        if not t.extended
    ]
    views = [
        Documented(v.name, "view", v.name, v.row, _columns(v.columns), table=TABLES.get(v.name)) for v in VIEWS.values()
    ]
    macros = [Documented(m.name, "macro", m.call, m.row, _columns(m.columns), m.parameters) for m in MACROS.values()]
    return [*tables, *views, *macros]


def _columns(fields: Sequence[pa.Field]) -> tuple[tuple[str, str, str], ...]:
    return tuple((f.name, sql_type(f.type), f.metadata[b"description"].decode()) for f in fields)


def _documentation() -> View:
    """Return the view that documents the others, and itself."""
    own = Documented("documentation", "view", "documentation", "a column or parameter", _columns(_DOCUMENTED))
    rows = []
    for d in (*documented(), own):
        more = [(name, "parameter", meaning) for name, _, meaning in d.parameters]
        rows += [(d.name, d.kind, d.row, *c) for c in (*more, *d.columns)]
    values = ", ".join(f"({', '.join(quote(text) for text in row)})" for row in rows)
    names = ", ".join(name for name, _, _ in own.columns)
    return View(own.name, own.row, _DOCUMENTED, f"select * from (values {values}) d({names})")


VIEWS: dict[str, View] = {
    v.name: v
    for v in (
        BY_SLIDE, TILE_EXPRESSION, PATIENT_EXPRESSION, SIGNATURE_BY_SLIDE, DOMAINS, CELL_TYPES, PSEUDOBULK, GENE_RELIABILITY,
        POOLED_SCORES, COHORT, STALE_SLIDES,
    )
}  # fmt: skip
MACROS: dict[str, Macro] = {
    m.name: m
    for m in (
        GENE_MAP, GENE_PANEL, TILE_GENES, GENE_PAIR, TILE_NEIGHBOURS, HOTSPOTS, NEIGHBOURS, SIGNATURE_SCORE, BATCH_EFFECT,
    )
}  # fmt: skip
"""In an order in which each can be created: one that calls another comes after it."""

DOCUMENTATION = _documentation()
VIEWS[DOCUMENTATION.name] = DOCUMENTATION

_KEY = "views"
"""Key of the lake's own metadata that says which views it has."""

_up: dict[Home, tuple[int, ...] | None] = {}
"""Lakes that this process has found to be up to date, with their state then, to avoid checking again."""


def bring_up(store: Store) -> bool:
    """Store the views and macros in the lake, unless it has them, and return whether it has them now: a lake that cannot be
    written may not. Raises `StorageError` without a lake.
    """
    store.open()
    stamp = store.lake.stamp
    if stamp is not None and _up.get(store.place) == stamp:
        return True
    if store.lake.read(_is_up):
        _up[store.place] = stamp
        return True
    if not store.place.is_writable:
        return False
    store.create()
    store.lake.transact(_create)
    return True


def create_temporary(connection: Cursor) -> None:
    """Create the views and macros on a connection, beside a lake that does not have them and cannot be written."""
    for view in VIEWS.values():
        if view.sql is not None:
            connection.execute(f"create or replace temp view {view.name} as {view.sql}")
    for macro in MACROS.values():
        connection.execute(f"create or replace temp macro {macro.call} as table {macro.sql}")


def _is_up(cursor: Cursor) -> bool:
    return read_about(cursor).get(_KEY) == _digest()


def _create(cursor: Cursor) -> None:
    if _is_up(cursor):
        return
    # Macros are bound when they are created, and find the lake's views only if it is the current database.
    cursor.execute(f"use {NAME}.main")
    for view in VIEWS.values():
        if view.sql is not None:
            create_view(cursor, view.name, view.row, view.sql)
    for macro in MACROS.values():
        cursor.execute(f"create or replace macro {NAME}.main.{macro.call} as table {macro.sql}")
    cursor.execute(f"delete from {ABOUT} where key = {quote(_KEY)}")
    cursor.execute(f"insert into {ABOUT} values (?, ?)", [_KEY, _digest()])


def _digest() -> str:
    said = [f"{v.name}|{v.row}|{v.sql}" for v in VIEWS.values()] + [f"{m.call}|{m.sql}" for m in MACROS.values()]
    return hashlib.sha256("\n".join(said).encode()).hexdigest()[:16]
