"""The schema of every stored table: names, types, units, and what one row is.

This is their only definition. Storage checks its writes against it. The catalog's views and Dagster's column documentation
are made from it. Views that are computed are in `catalog.views`.
"""

from dataclasses import dataclass

import pyarrow as pa

SCHEMA_VERSION = 1


def column(name: str, type_: pa.DataType, description: str, *, nullable: bool = False) -> pa.Field:
    """Return a column with its description."""
    return pa.field(name, type_, nullable=nullable, metadata={"description": description})


FEATURE_DIM = 1536
"""Width of a tile's embedding by GigaPath, on which STPath was trained."""


@dataclass(frozen=True)
class Table:
    """One stored table.

    `schema` is the schema of its Parquet files. `keys` and `value`, if given, name the list columns that its view turns into
    rows: such a table is stored *by gene*. The first row of a part has gene NULL and holds the lists of the part's keys
    (tiles or spots). Each further row is a gene with its values in the same order. So a part is complete without other
    tables. If `section` names a column, a part has such rows for each of its values, one section after another. The view
    shows the rows of the tables `and_of`, too, as far as their columns are the same. `asset` is the asset that writes the
    table, if it has another name. `looked_up` are columns of the view that come from `fingerprints`. `leading` are columns
    that the view shows first. Where `extended` is set, the table's view is defined in `catalog.views`, with more columns.
    """

    name: str
    row: str
    schema: pa.Schema
    keys: tuple[str, ...] = ()
    value: str | None = None
    section: str | None = None
    and_of: "tuple[Table, ...]" = ()
    asset: str | None = None
    inline: bool = False
    looked_up: tuple[pa.Field, ...] = ()
    leading: tuple[str, ...] = ()
    extended: bool = False

    @property
    def by_gene(self) -> bool:
        """True if the table is stored as one row per gene."""
        return self.value is not None

    def view_columns(self) -> list[pa.Field]:
        """Return the columns of the table's view: the stored ones, with the elements of lists for a by-gene table."""
        lists = {*self.keys, self.value} if self.by_gene else set()
        stored = [f.with_type(f.type.value_type) if f.name in lists else f for f in self.schema]
        first = [next(f for f in stored if f.name == name) for name in self.leading]
        return [*first, *(f for f in stored if f.name not in self.leading), *self.looked_up]


SLIDE_ID = column("slide_id", pa.string(), "slide, unique in the data root")
TILE_ID = column(
    "tile_id",
    pa.string(),
    "tile, unique in its slide: row and column of the grid, or number of the spot or of the tile in a file",
)
MODEL = column(
    "model",
    pa.string(),
    "`stpath`, `stpath-demo` if the demo weights were used, a predictor that `fit` made, such as `ridge:NAME`, or the name "
    "that predictions of another tool were imported under",
)

SLIDES = Table(
    "slides",
    "a registered scan",
    pa.schema(
        [
            SLIDE_ID,
            column("uri", pa.string(), "path or URL of the scan, as given; it is read there, never moved"),
            column(
                "sha256",
                pa.string(),
                "SHA-256 of the file's content; of a scan of several files, of their sorted SHA-256s",
            ),
            column("size_bytes", pa.int64(), "size of the file, or of all files of the scan, bytes"),
            column("width_px", pa.int64(), "width at level 0, pixels"),
            column("height_px", pa.int64(), "height at level 0, pixels"),
            column("mpp", pa.float64(), "scale used, µm per pixel at level 0; the mean if `mpp_x` and `mpp_y` differ"),
            column("mpp_source", pa.string(), "`file`, `user`, or `spots`: from the lattice of its Visium array"),
            column("mpp_file", pa.float64(), "scale in the file, as `mpp`, µm per pixel, if it has one", nullable=True),
            column("vendor", pa.string(), "scanner vendor by file format, if known", nullable=True),
            column(
                "objective_power", pa.float64(), "magnification of the objective, if the file says it", nullable=True
            ),
            column("backend", pa.string(), "reader of the scan: `tiffslide`, `openslide` or `image`"),
            column("levels", pa.int64(), "number of pyramid levels"),
            column("organ", pa.string(), "organ token of STPath; NULL is its padding token", nullable=True),
            column("tech", pa.string(), "technology token of STPath; NULL is its padding token", nullable=True),
            column("spots_uri", pa.string(), "measured expression paired with the scan", nullable=True),
            column("status", pa.string(), "`ready`, `quarantined` or `retired`"),
            column("reason", pa.string(), "why a slide is quarantined or retired", nullable=True),
            column(
                "warnings",
                pa.list_(pa.string()),
                "warnings about the scan, such as a scale that contradicts the objective",
            ),
            column("registered_at", pa.timestamp("us", tz="UTC"), "when the scan was first registered"),
            column("regions_uri", pa.string(), "GeoJSON of regions that edit the tissue mask, if any", nullable=True),
            column(
                "features_uri", pa.string(), "file of tiles and their features, made elsewhere, if any", nullable=True
            ),
            column("mpp_x", pa.float64(), "scale used along x; NULL is `mpp`", nullable=True),
            column("mpp_y", pa.float64(), "scale used along y; NULL is `mpp`", nullable=True),
            column("patient_id", pa.string(), "patient that the section is of, as given", nullable=True),
            column("cohort", pa.string(), "cohort that the slide belongs to, as given", nullable=True),
            column(
                "modified_ns",
                pa.int64(),
                "modification time of the file when it was hashed, ns since 1970",
                nullable=True,
            ),
            column(
                "asked_encoder", pa.string(), "`--encoder` of the slide's last run; NULL is the setting", nullable=True
            ),
            column("asked_genes", pa.string(), "`--genes` of the slide's last run; NULL is the setting", nullable=True),
            column(
                "asked_models", pa.string(), "`--models` of the slide's last run; NULL is the setting", nullable=True
            ),
            column(
                "asked_context",
                pa.string(),
                "`--context-fraction` of the slide's last run; NULL is the setting",
                nullable=True,
            ),
            column("more", pa.string(), "further columns of its manifest or sidecar, JSON", nullable=True),
            column(
                "arrival",
                pa.string(),
                "digest of file and sidecar as the inbox saw them when the scan was registered; NULL if it was not by the inbox",
                nullable=True,
            ),
        ]
    ),
    inline=True,
    leading=("slide_id", "organ", "tech", "status", "patient_id", "cohort", "mpp", "width_px", "height_px", "reason"),
)

TILE_GRIDS = Table(
    "tile_grids",
    "a tile of tissue",
    pa.schema(
        [
            SLIDE_ID,
            TILE_ID,
            column("x_px", pa.float64(), "left edge, level-0 pixels"),
            column("y_px", pa.float64(), "top edge, level-0 pixels"),
            column("center_x_px", pa.float64(), "centre, level-0 pixels"),
            column("center_y_px", pa.float64(), "centre, level-0 pixels"),
            column("side_px", pa.float64(), "side of the tile on the scan along x, level-0 pixels"),
            column("tile_px", pa.int32(), "side of the tile as the encoder sees it, pixels"),
            column("mpp", pa.float64(), "scale of the tile as the encoder sees it, µm per pixel"),
            column("tissue_fraction", pa.float64(), "share of the tile's area that is tissue, 0 to 1"),
            column("pen_fraction", pa.float64(), "share of the tile's area under pen, 0 to 1"),
            column(
                "blank_fraction", pa.float64(), "share of the tile's area as bright as glass or not scanned, 0 to 1"
            ),
            column(
                "saturation",
                pa.float64(),
                "mean colour of the tile's tissue, 1 - min / max of red, green and blue relative to glass; 0 is grey",
                nullable=True,
            ),
            column(
                "focus",
                pa.float64(),
                "grey values' mean square finer than 4 µm over that between 4 and 12 µm plus 3, at 4 µm per pixel, in tissue; "
                "a ratio, below 0.15 is blurred",
                nullable=True,
            ),
            column("spot_id", pa.string(), "spot that the tile is centred on; NULL in a regular grid", nullable=True),
            column(
                "side_y_px",
                pa.float64(),
                "side of the tile on the scan along y, level-0 pixels; NULL is `side_px`, for square pixels",
                nullable=True,
            ),
        ]
    ),
)

GIGAPATH_FEATURES = Table(
    "gigapath_features",
    "a tile's 1536-d embedding",
    pa.schema(
        [
            SLIDE_ID,
            TILE_ID,
            column("feature", pa.list_(pa.float32(), FEATURE_DIM), "embedding of the tile, float32"),
            column("encoder", pa.string(), "`gigapath` or `demo`"),
        ]
    ),
)

GIGAPATH_THROUGHPUT = Table(
    "gigapath_throughput",
    "the timing of a slide's features when they were last computed",
    pa.schema(
        [
            SLIDE_ID,
            column("encoder", pa.string(), "`gigapath` or `demo`"),
            column(
                "precision",
                pa.string(),
                "precision of the encoder's matrix products: `float32`, `bfloat16` or `float16`",
            ),
            column(
                "device", pa.string(), "name of the device; several devices of a Ray cluster are separated by commas"
            ),
            column("via", pa.string(), "`local`, or `ray` for the warm encoder on a cluster"),
            column("batch_size", pa.int32(), "tiles per batch"),
            column("tiles", pa.int64(), "tiles embedded in the run that finished"),
            column("resumed_tiles", pa.int64(), "tiles taken from pieces of a killed run"),
            column("seconds", pa.float64(), "time from the first pixel to the last feature, s"),
            column("tiles_per_s", pa.float64(), "`tiles` over `seconds`"),
            column("waiting_s", pa.float64(), "time in which the encoder waited for pixels, s"),
            column("computing_s", pa.float64(), "time in the encoder, or waiting for a server, s"),
            column("peak_rss_bytes", pa.int64(), "peak resident memory of the process, bytes"),
            column(
                "gpu_memory_bytes",
                pa.int64(),
                "peak memory allocated on a GPU, bytes; NULL without a GPU",
                nullable=True,
            ),
            column("finished_at", pa.timestamp("us", tz="UTC"), "time when the features were complete"),
        ]
    ),
    asset="gigapath_features",
    inline=True,
)

_EXPRESSION = column("expression_log1p", pa.list_(pa.float32()), "predicted log1p expression", nullable=True)
_TILE_IDS = column("tile_id", pa.list_(pa.string()), TILE_ID.metadata[b"description"].decode(), nullable=True)
_GENE_ASKED = column("gene", pa.string(), "gene symbol as asked for", nullable=True)

REFERENCE_MODELS = Table(
    "reference_models",
    "a predictor that was fitted to slides with measured spots, or a copy of it without some of them",
    pa.schema(
        [
            column("model", pa.string(), "its name, kind and name: `ridge:NAME`"),
            column(
                "left_out",
                pa.string(),
                "patient or slide that this copy was fitted without, `patient P` or `slide S`; empty for the predictor itself",
            ),
            column("asked", pa.string(), "JSON: what `fit` was asked for"),
            column("slides", pa.list_(pa.string()), "slides that it was fitted to"),
            column("patients", pa.list_(pa.string()), "patients of these slides, as far as they are known"),
            column("scans", pa.list_(pa.string()), "SHA-256 of these slides' scans"),
            column("n_spots", pa.int64(), "number of spots that it was fitted to"),
            column("n_genes", pa.int64(), "number of genes that it predicts"),
            column("encoder", pa.string(), "encoder whose features it takes"),
            column("digest", pa.string(), "SHA-256 of all that it was made from"),
            column("file", pa.string(), "file that holds it, under the root's tables"),
            column("sha256", pa.string(), "SHA-256 of that file"),
            column("fitted_at", pa.timestamp("us", tz="UTC"), "when it was fitted"),
        ]
    ),
    inline=True,
)

REFERENCE_PREDICTIONS = Table(
    "reference_predictions",
    "a tile's expression of one gene as a fitted predictor sees it (view; stored by gene)",
    pa.schema(
        [
            SLIDE_ID,
            _TILE_IDS,
            column(
                "distance_to_training",
                pa.list_(pa.float32()),
                "how far the tile's features are from those that the predictor was fitted to; 1 is as far as these are from "
                "each other",
                nullable=True,
            ),
            _GENE_ASKED,
            _EXPRESSION,
            MODEL,
        ]
    ),
    keys=("tile_id", "distance_to_training"),
    value="expression_log1p",
    section="model",
)

CONTEXT_PREDICTIONS = Table(
    "context_predictions",
    "a tile's expression of one gene, predicted with some of the slide's measured spots known (view; stored by gene)",
    pa.schema(
        [
            SLIDE_ID,
            _TILE_IDS,
            column(
                "is_context", pa.list_(pa.int32()), "1 if the tile's measured spot was known, else 0", nullable=True
            ),
            _GENE_ASKED,
            _EXPRESSION,
            column(
                "model",
                pa.string(),
                "`interpolation_only`: from the known spots alone, without the image; `residual_smoothed(MODEL)`: a model plus "
                "its smoothed error at the known spots; `in_context(stpath)`: STPath that is given them; `adapted(stpath)`: a "
                "new head on its last state, fitted to them",
            ),
        ]
    ),
    keys=("tile_id", "is_context"),
    value="expression_log1p",
    section="model",
)

IMPORTED_PREDICTIONS = Table(
    "imported_predictions",
    "a tile's expression of one gene as another tool predicted it (view; stored by gene)",
    pa.schema(
        [
            SLIDE_ID,
            _TILE_IDS,
            column("center_x_px", pa.list_(pa.float64()), "centre of the tile, level-0 pixels", nullable=True),
            column("center_y_px", pa.list_(pa.float64()), "centre of the tile, level-0 pixels", nullable=True),
            _GENE_ASKED,
            _EXPRESSION,
            MODEL,
        ]
    ),
    keys=("tile_id", "center_x_px", "center_y_px"),
    value="expression_log1p",
    section="model",
)

IMPORTED_MODELS = Table(
    "imported_models",
    "predictions of another tool for a slide: who made them, and under which licence",
    pa.schema(
        [
            SLIDE_ID,
            column("model", pa.string(), "name that they were imported under"),
            column("licence", pa.string(), "licence of the model or of its predictions, as given"),
            column("unit", pa.string(), "unit in the file: `log1p`, or `counts` of which log1p was taken"),
            column("source", pa.string(), "name of the file"),
            column("sha256", pa.string(), "SHA-256 of the file"),
            column("side_px", pa.float64(), "side of its tiles, level-0 pixels, if known", nullable=True),
            column("imported_at", pa.timestamp("us", tz="UTC"), "when it was imported"),
        ]
    ),
    inline=True,
)

STPATH_PREDICTIONS = Table(
    "stpath_predictions",
    "a tile's predicted expression of one gene, by STPath, a fitted predictor or another tool (view; stored by gene)",
    pa.schema([SLIDE_ID, _TILE_IDS, _GENE_ASKED, _EXPRESSION, MODEL]),
    keys=("tile_id",),
    value="expression_log1p",
    and_of=(REFERENCE_PREDICTIONS, IMPORTED_PREDICTIONS),
)

_SUMMARY = pa.schema(
    [
        SLIDE_ID,
        column("gene", pa.string(), "gene symbol as asked for"),
        MODEL,
        column("tiles", pa.int64(), "number of tiles"),
        column("mean", pa.float64(), "mean of log1p expression over the tiles"),
        column("sd", pa.float64(), "standard deviation of the same; 0 for one tile"),
        column("p05", pa.float64(), "5 % quantile of the same"),
        column("median", pa.float64(), "median of the same"),
        column("p95", pa.float64(), "95 % quantile of the same"),
        column(
            "smoothness",
            pa.float64(),
            "Moran's I over neighbouring tiles: 1 is smooth, 0 is noise. It is no quality: predictions are smoother than "
            "what is measured. NULL if constant",
            nullable=True,
        ),
        column(
            "gini",
            pa.float64(),
            "Gini coefficient of expm1 of the same, negative values as 0: 0 is even, near 1 is all in few tiles; NULL if all "
            "are 0",
            nullable=True,
        ),
        column(
            "quantiles",
            pa.list_(pa.float32()),
            "41 quantiles of the same in equal steps, from the minimum to the maximum",
            nullable=True,
        ),
    ]
)

IMPORTED_BY_SLIDE = Table(
    "imported_by_slide",
    "a slide's expression of one gene as another tool predicted it, over its tiles",
    _SUMMARY,
    asset="imported_predictions",
)

EXPRESSION_BY_SLIDE = Table(
    "expression_by_slide",
    "a slide's predicted expression of one gene, over its tiles",
    _SUMMARY,
    and_of=(IMPORTED_BY_SLIDE,),
    extended=True,
)

SPOT_EXPRESSION = Table(
    "spot_expression",
    "a spot's measured count of one gene (view; stored by gene)",
    pa.schema(
        [
            SLIDE_ID,
            column("spot_id", pa.list_(pa.string()), "spot or barcode, as in the measured data", nullable=True),
            column("x_px", pa.list_(pa.float64()), "centre of the spot, level-0 pixels", nullable=True),
            column("y_px", pa.list_(pa.float64()), "centre of the spot, level-0 pixels", nullable=True),
            column("gene", pa.string(), "gene symbol of the measured data", nullable=True),
            column("count", pa.list_(pa.int32()), "raw count", nullable=True),
        ]
    ),
    keys=("spot_id", "x_px", "y_px"),
    value="count",
)

_FIT = (
    "rank correlation (Spearman) of the spots' sums of counts with the haematoxylin around them, over those on tissue"
)

SPOT_REGISTRATION = Table(
    "spot_registration",
    "whether a slide's measured spots fit its scan",
    pa.schema(
        [
            SLIDE_ID,
            column("verdict", pa.string(), "`ok`, or `suspect`: their scores mean little until that is explained"),
            column("orientation", pa.string(), "what fits best: `as given`, or what to do to the spots"),
            column("reason", pa.string(), "what is suspect, one line", nullable=True),
            column("n_spots", pa.int64(), "number of spots"),
            column("on_tissue", pa.float64(), "share of the spots on tissue, 0 to 1"),
            column("depth_rho", pa.float64(), f"{_FIT}; NULL if undefined", nullable=True),
            column("best_on_tissue", pa.float64(), "`on_tissue` in the orientation that fits best"),
            column("best_depth_rho", pa.float64(), "`depth_rho` in the orientation that fits best", nullable=True),
        ]
    ),
    inline=True,
)

EVALUATION_METRICS = Table(
    "evaluation_metrics",
    "a slide's score for one gene, model and protocol",
    pa.schema(
        [
            SLIDE_ID,
            column("gene", pa.string(), "gene symbol"),
            MODEL,
            column(
                "protocol",
                pa.string(),
                "how they were paired, and the scale on which they were compared: `tutorial:raw_log1p` is log(1 + count), "
                "`tutorial:cp10k_log1p` is log(1 + count per 10,000 counts of the spot); `in_context(SHARE,LAYOUT,SEED):…` has "
                "only the spots whose tiles are not context",
            ),
            column(
                "relation",
                pa.string(),
                "how the slide relates to those that a fitted predictor saw: `other patient`; `patient left out` or "
                "`slide left out`, by a copy that was fitted without it; `unknown patient`; `same patient`, only if allowed by "
                "name; NULL for STPath",
                nullable=True,
            ),
            column("n_spots", pa.int64(), "number of spots paired with a tile"),
            column(
                "pearson_r",
                pa.float64(),
                "Pearson correlation; NULL if either side is constant",
                nullable=True,
            ),
            column("pearson_low", pa.float64(), "lower end of r's 95 % interval; NULL if undefined", nullable=True),
            column("pearson_high", pa.float64(), "upper end of r's 95 % interval; NULL if undefined", nullable=True),
            column(
                "n_effective",
                pa.float64(),
                "number of independent spots that would give r the same variance (Dutilleul 1993), which the interval is for",
                nullable=True,
            ),
            column(
                "r_depth",
                pa.float64(),
                "Pearson correlation of the measurement with the spots' log depth (sum of counts): what depth alone says",
                nullable=True,
            ),
            column(
                "r_beyond_depth",
                pa.float64(),
                "partial correlation of prediction and measurement given the spots' log depth",
                nullable=True,
            ),
            column(
                "noise_ceiling",
                pa.float64(),
                "correlation that knowing the expected counts would reach, from halves of the counts; NULL if they are too few",
                nullable=True,
            ),
            column(
                "r2",
                pa.float64(),
                "coefficient of determination; NULL if the measurement is constant",
                nullable=True,
            ),
            column("mse", pa.float64(), "mean squared error, on the protocol's scale, squared"),
            column(
                "mean_predicted", pa.float64(), "mean of the prediction over the spots, on its own scale", nullable=True
            ),
            column(
                "sd_predicted", pa.float64(), "standard deviation of the same, of all spots (ddof 0)", nullable=True
            ),
            column("mean_measured", pa.float64(), "mean of the measurement, on the protocol's scale", nullable=True),
            column("sd_measured", pa.float64(), "standard deviation of the same, of all spots (ddof 0)", nullable=True),
        ]
    ),
)

MODEL_COMPARISON = Table(
    "model_comparison",
    "a difference of two models' scores for one gene of a slide, over the same spots",
    pa.schema(
        [
            SLIDE_ID,
            column("gene", pa.string(), "gene symbol"),
            column("protocol", pa.string(), "as in `evaluation_metrics`"),
            column("model", pa.string(), "one model"),
            column("than", pa.string(), "the other model"),
            column(
                "r_difference",
                pa.float64(),
                "Pearson r of `model` less that of `than`; NULL if either is",
                nullable=True,
            ),
            column(
                "low", pa.float64(), "lower end of the difference's 95 % interval; NULL if undefined", nullable=True
            ),
            column(
                "high", pa.float64(), "upper end of the difference's 95 % interval; NULL if undefined", nullable=True
            ),
        ]
    ),
    asset="evaluation_metrics",
)

PREDICTION_ERRORS = Table(
    "prediction_errors",
    "how far a model's prediction of one gene was from what was measured, over a slide's spots",
    pa.schema(
        [
            SLIDE_ID,
            column("gene", pa.string(), "gene symbol"),
            MODEL,
            column("protocol", pa.string(), "`tutorial:raw_log1p`"),
            column(
                "quantiles",
                pa.list_(pa.float32()),
                "40 quantiles of the absolute error, log1p: the middles of 40 equal shares of the spots, ascending",
            ),
        ]
    ),
    asset="evaluation_metrics",
)

GENE_MATCHES = Table(
    "gene_matches",
    "a predicted gene of a slide with spots, and the measured one that it was compared with",
    pa.schema(
        [
            SLIDE_ID,
            column("gene", pa.string(), "gene symbol as predicted"),
            column("measured", pa.string(), "name in the measured data; NULL if it was not measured", nullable=True),
            column(
                "how",
                pa.string(),
                "how the names were found to be one: `same`, `id version` (of Ensembl), `case`, `renamed` (an earlier or later "
                "symbol), `vocabulary` (STPath's, for measured Ensembl ids); or `not measured`",
            ),
        ]
    ),
    asset="evaluation_metrics",
)

_FACTS = column("facts", pa.string(), "JSON: everything that the part was made from")

FINGERPRINTS = Table(
    "fingerprints",
    "a fingerprint: what parts with its digest were made from",
    pa.schema([column("digest", pa.string(), "SHA-256 of `facts`"), _FACTS]),
    inline=True,
)

LINEAGE = Table(
    "lineage",
    "a stored part: one slide's rows of one table, and what they were made from",
    pa.schema(
        [
            SLIDE_ID,
            column("table_name", pa.string(), "table that the part belongs to"),
            column("digest", pa.string(), "the part's fingerprint"),
            column(
                "file",
                pa.string(),
                "file that holds the part, under the root's tables; NULL in the metadata",
                nullable=True,
            ),
            column("sha256", pa.string(), "SHA-256 of that file", nullable=True),
            column("size_bytes", pa.int64(), "size of that file, bytes", nullable=True),
            column("row_count", pa.int64(), "rows that the part has in its view"),
            column("made_at", pa.timestamp("us", tz="UTC"), "when the part was stored"),
            column("damaged", pa.string(), "what was found wrong with the file, if anything", nullable=True),
            column("summary", pa.string(), "JSON: how the rows came about, such as tiles dropped", nullable=True),
        ]
    ),
    inline=True,
    looked_up=(_FACTS,),
)

FAILURES = Table(
    "failures",
    "a stage of a slide that failed when it was last tried",
    pa.schema(
        [
            SLIDE_ID,
            column("stage", pa.string(), "stage that failed"),
            column("reason", pa.string(), "why, one line"),
            column("failed_at", pa.timestamp("us", tz="UTC"), "when it was tried"),
            column("made_from", pa.string(), "fingerprint that it was tried with, if that was known", nullable=True),
        ]
    ),
    inline=True,
)

QUARANTINE = Table(
    "quarantine",
    "a scan in the inbox that cannot be registered",
    pa.schema(
        [
            column("uri", pa.string(), "path of the scan"),
            column("slide_id", pa.string(), "id that it would have"),
            column("arrival", pa.string(), "digest of file and sidecar as they were tried"),
            column("tries", pa.int64(), "how often these were tried; three times if the process died, else once"),
            column(
                "reason", pa.string(), "why it cannot be registered and what to do, one line; empty while it is tried"
            ),
            column("tried_at", pa.timestamp("us", tz="UTC"), "when it was tried last"),
        ]
    ),
    inline=True,
)

GENE_SETS = Table(
    "gene_sets",
    "a set of genes, such as a pathway, imported from a GMT file",
    pa.schema(
        [
            column("set_name", pa.string(), "name of the set, unique"),
            column("description", pa.string(), "what the file says of it", nullable=True),
            column("genes", pa.list_(pa.string()), "its gene symbols"),
            column("source", pa.string(), "name of the file"),
            column("imported_at", pa.timestamp("us", tz="UTC"), "when it was imported"),
        ]
    ),
    inline=True,
)

_METHOD = column("method", pa.string(), "tool and version that the result is of, as given")
_GRID = column(
    "grid", pa.string(), "digest of the tile grid that the tiles are of: the view shows rows of current grids only"
)

TILE_DOMAIN = Table(
    "tile_domain",
    "a tile's tissue domain or cluster, by another tool",
    pa.schema(
        [
            SLIDE_ID,
            TILE_ID,
            _METHOD,
            column("domain", pa.string(), "domain, cluster or tissue class"),
            column("probability", pa.float64(), "how sure the tool is, 0 to 1, if it says so", nullable=True),
            _GRID,
        ]
    ),
    inline=True,
    extended=True,
)

TILE_CELL_TYPES = Table(
    "tile_cell_types",
    "how much of a cell type is in a tile, by another tool",
    pa.schema(
        [
            SLIDE_ID,
            TILE_ID,
            _METHOD,
            column("cell_type", pa.string(), "cell type"),
            column("value", pa.float64(), "its amount, at least 0"),
            column("unit", pa.string(), "`fraction` of the tile's cells, 0 to 1, or `cells`"),
            _GRID,
        ]
    ),
    inline=True,
    extended=True,
)

BULK_EXPRESSION = Table(
    "bulk_expression",
    "a patient's expression of one gene, measured in bulk",
    pa.schema(
        [
            column("patient_id", pa.string(), "patient, as in `slides`"),
            column("gene", pa.string(), "gene symbol"),
            column("expression_log1p", pa.float64(), "log1p (natural) of what was measured"),
            column("unit", pa.string(), "unit before log1p: `tpm`, `cpm` or `counts`"),
            column("source", pa.string(), "name of the file"),
        ]
    ),
    inline=True,
)

OWN_TABLES = Table(
    "own_tables",
    "a table of your own, imported from a file",
    pa.schema(
        [
            column("name", pa.string(), "name of the table, and of its view"),
            column("key", pa.string(), "`patient_id` or `slide_id`: one row each"),
            column("columns", pa.list_(pa.string()), "its columns, with types"),
            column("source", pa.string(), "name of the file"),
            column("sha256", pa.string(), "SHA-256 of the file"),
            column("row_count", pa.int64(), "number of rows"),
            column("imported_at", pa.timestamp("us", tz="UTC"), "when it was imported"),
        ]
    ),
    inline=True,
)

TABLES: dict[str, Table] = {
    t.name: t
    for t in (
        SLIDES,
        TILE_GRIDS,
        GIGAPATH_FEATURES,
        GIGAPATH_THROUGHPUT,
        STPATH_PREDICTIONS,
        SPOT_EXPRESSION,
        SPOT_REGISTRATION,
        REFERENCE_MODELS,
        REFERENCE_PREDICTIONS,
        CONTEXT_PREDICTIONS,
        IMPORTED_PREDICTIONS,
        IMPORTED_MODELS,
        EXPRESSION_BY_SLIDE,
        IMPORTED_BY_SLIDE,
        EVALUATION_METRICS,
        MODEL_COMPARISON,
        GENE_MATCHES,
        PREDICTION_ERRORS,
        GENE_SETS,
        TILE_DOMAIN,
        TILE_CELL_TYPES,
        BULK_EXPRESSION,
        OWN_TABLES,
        LINEAGE,
        FINGERPRINTS,
        FAILURES,
        QUARANTINE,
    )
}

_NO_PARTS = (SLIDES, LINEAGE, FINGERPRINTS, FAILURES, QUARANTINE, REFERENCE_MODELS, GENE_SETS, TILE_DOMAIN, TILE_CELL_TYPES,
             BULK_EXPRESSION, OWN_TABLES)  # fmt: skip
PART_TABLES = frozenset(TABLES) - {t.name for t in _NO_PARTS}
"""The tables of slides' parts. The others describe the parts, or hold what was imported for many slides at once."""
