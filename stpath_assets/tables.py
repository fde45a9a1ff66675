"""The schema of every stored table: names, types, units, and what one row is.

This is their only definition. Storage checks its writes against it. The catalog's views and Dagster's column documentation
are made from it.
"""

from dataclasses import dataclass

import pyarrow as pa

SCHEMA_VERSION = 1


def _column(name: str, type_: pa.DataType, description: str, *, nullable: bool = False) -> pa.Field:
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
    shows the rows of the table `and_of`, too, as far as their columns are the same. `asset` is the asset that writes the
    table, if it has another name. `looked_up` are columns of the view that come from `fingerprints`.
    """

    name: str
    row: str
    schema: pa.Schema
    keys: tuple[str, ...] = ()
    value: str | None = None
    section: str | None = None
    and_of: "Table | None" = None
    asset: str | None = None
    inline: bool = False
    looked_up: tuple[pa.Field, ...] = ()

    @property
    def by_gene(self) -> bool:
        """True if the table is stored as one row per gene."""
        return self.value is not None

    def view_columns(self) -> list[pa.Field]:
        """Return the columns of the table's view: the stored ones, with the elements of lists for a by-gene table."""
        lists = {*self.keys, self.value} if self.by_gene else set()
        stored = [f.with_type(f.type.value_type) if f.name in lists else f for f in self.schema]
        return [*stored, *self.looked_up]


_SLIDE_ID = _column("slide_id", pa.string(), "slide, unique in the data root")
_TILE_ID = _column(
    "tile_id",
    pa.string(),
    "tile, unique in its slide: row and column of the grid, or number of the spot or of the tile in a file",
)
_MODEL = _column(
    "model",
    pa.string(),
    "`stpath`, `stpath-demo` if the demo weights were used, or a predictor that `fit` made, such as `ridge:NAME`",
)

SLIDES = Table(
    "slides",
    "a registered scan",
    pa.schema(
        [
            _SLIDE_ID,
            _column("uri", pa.string(), "path or URL of the scan, as given; it is read there, never moved"),
            _column(
                "sha256",
                pa.string(),
                "SHA-256 of the file's content; of a scan of several files, of their sorted SHA-256s",
            ),
            _column("size_bytes", pa.int64(), "size of the file, or of all files of the scan, bytes"),
            _column("width_px", pa.int64(), "width at level 0, pixels"),
            _column("height_px", pa.int64(), "height at level 0, pixels"),
            _column("mpp", pa.float64(), "scale used, µm per pixel at level 0; the mean if `mpp_x` and `mpp_y` differ"),
            _column("mpp_source", pa.string(), "`file`, `user`, or `spots`: from the lattice of its Visium array"),
            _column(
                "mpp_file", pa.float64(), "scale in the file, as `mpp`, µm per pixel, if it has one", nullable=True
            ),
            _column("vendor", pa.string(), "scanner vendor by file format, if known", nullable=True),
            _column(
                "objective_power", pa.float64(), "magnification of the objective, if the file says it", nullable=True
            ),
            _column("backend", pa.string(), "reader of the scan: `tiffslide`, `openslide` or `image`"),
            _column("levels", pa.int64(), "number of pyramid levels"),
            _column("organ", pa.string(), "organ token of STPath; NULL is its padding token", nullable=True),
            _column("tech", pa.string(), "technology token of STPath; NULL is its padding token", nullable=True),
            _column("spots_uri", pa.string(), "measured expression paired with the scan", nullable=True),
            _column("status", pa.string(), "`ready`, `quarantined` or `retired`"),
            _column("reason", pa.string(), "why a slide is quarantined or retired", nullable=True),
            _column(
                "warnings",
                pa.list_(pa.string()),
                "warnings about the scan, such as a scale that contradicts the objective",
            ),
            _column("registered_at", pa.timestamp("us", tz="UTC"), "when the scan was first registered"),
            _column("regions_uri", pa.string(), "GeoJSON of regions that edit the tissue mask, if any", nullable=True),
            _column(
                "features_uri", pa.string(), "file of tiles and their features, made elsewhere, if any", nullable=True
            ),
            _column("mpp_x", pa.float64(), "scale used along x; NULL is `mpp`", nullable=True),
            _column("mpp_y", pa.float64(), "scale used along y; NULL is `mpp`", nullable=True),
            _column("patient_id", pa.string(), "patient that the section is of, as given", nullable=True),
            _column("cohort", pa.string(), "cohort that the slide belongs to, as given", nullable=True),
            _column(
                "modified_ns",
                pa.int64(),
                "modification time of the file when it was hashed, ns since 1970",
                nullable=True,
            ),
            _column(
                "asked_encoder", pa.string(), "`--encoder` of the slide's last run; NULL is the setting", nullable=True
            ),
            _column(
                "asked_genes", pa.string(), "`--genes` of the slide's last run; NULL is the setting", nullable=True
            ),
            _column(
                "asked_models", pa.string(), "`--models` of the slide's last run; NULL is the setting", nullable=True
            ),
            _column(
                "asked_context",
                pa.string(),
                "`--context-fraction` of the slide's last run; NULL is the setting",
                nullable=True,
            ),
            _column("more", pa.string(), "further columns of its manifest or sidecar, JSON", nullable=True),
            _column(
                "arrival",
                pa.string(),
                "digest of file and sidecar as the inbox saw them when the scan was registered; NULL if it was not by the inbox",
                nullable=True,
            ),
        ]
    ),
    inline=True,
)

TILE_GRIDS = Table(
    "tile_grids",
    "a tile of tissue",
    pa.schema(
        [
            _SLIDE_ID,
            _TILE_ID,
            _column("x_px", pa.float64(), "left edge, level-0 pixels"),
            _column("y_px", pa.float64(), "top edge, level-0 pixels"),
            _column("center_x_px", pa.float64(), "centre, level-0 pixels"),
            _column("center_y_px", pa.float64(), "centre, level-0 pixels"),
            _column("side_px", pa.float64(), "side of the tile on the scan along x, level-0 pixels"),
            _column("tile_px", pa.int32(), "side of the tile as the encoder sees it, pixels"),
            _column("mpp", pa.float64(), "scale of the tile as the encoder sees it, µm per pixel"),
            _column("tissue_fraction", pa.float64(), "share of the tile's area that is tissue, 0 to 1"),
            _column("pen_fraction", pa.float64(), "share of the tile's area under pen, 0 to 1"),
            _column(
                "blank_fraction", pa.float64(), "share of the tile's area as bright as glass or not scanned, 0 to 1"
            ),
            _column(
                "saturation",
                pa.float64(),
                "mean colour of the tile's tissue, 1 - min / max of red, green and blue relative to glass; 0 is grey",
                nullable=True,
            ),
            _column(
                "focus",
                pa.float64(),
                "grey values' mean square finer than 4 µm over that between 4 and 12 µm plus 3, at 4 µm per pixel, in tissue; "
                "a ratio, below 0.15 is blurred",
                nullable=True,
            ),
            _column("spot_id", pa.string(), "spot that the tile is centred on; NULL in a regular grid", nullable=True),
            _column(
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
            _SLIDE_ID,
            _TILE_ID,
            _column("feature", pa.list_(pa.float32(), FEATURE_DIM), "embedding of the tile, float32"),
            _column("encoder", pa.string(), "`gigapath` or `demo`"),
        ]
    ),
)

GIGAPATH_THROUGHPUT = Table(
    "gigapath_throughput",
    "the timing of a slide's features when they were last computed",
    pa.schema(
        [
            _SLIDE_ID,
            _column("encoder", pa.string(), "`gigapath` or `demo`"),
            _column(
                "precision",
                pa.string(),
                "precision of the encoder's matrix products: `float32`, `bfloat16` or `float16`",
            ),
            _column(
                "device", pa.string(), "name of the device; several devices of a Ray cluster are separated by commas"
            ),
            _column("via", pa.string(), "`local`, or `ray` for the warm encoder on a cluster"),
            _column("batch_size", pa.int32(), "tiles per batch"),
            _column("tiles", pa.int64(), "tiles embedded in the run that finished"),
            _column("resumed_tiles", pa.int64(), "tiles taken from pieces of a killed run"),
            _column("seconds", pa.float64(), "time from the first pixel to the last feature, s"),
            _column("tiles_per_s", pa.float64(), "`tiles` over `seconds`"),
            _column("waiting_s", pa.float64(), "time in which the encoder waited for pixels, s"),
            _column("computing_s", pa.float64(), "time in the encoder, or waiting for a server, s"),
            _column("peak_rss_bytes", pa.int64(), "peak resident memory of the process, bytes"),
            _column(
                "gpu_memory_bytes",
                pa.int64(),
                "peak memory allocated on a GPU, bytes; NULL without a GPU",
                nullable=True,
            ),
            _column("finished_at", pa.timestamp("us", tz="UTC"), "time when the features were complete"),
        ]
    ),
    asset="gigapath_features",
    inline=True,
)

_EXPRESSION = _column("expression_log1p", pa.list_(pa.float32()), "predicted log1p expression", nullable=True)
_TILE_IDS = _column("tile_id", pa.list_(pa.string()), _TILE_ID.metadata[b"description"].decode(), nullable=True)
_GENE_ASKED = _column("gene", pa.string(), "gene symbol as asked for", nullable=True)

REFERENCE_MODELS = Table(
    "reference_models",
    "a predictor that was fitted to slides with measured spots, or a copy of it without some of them",
    pa.schema(
        [
            _column("model", pa.string(), "its name, kind and name: `ridge:NAME`"),
            _column(
                "left_out",
                pa.string(),
                "patient or slide that this copy was fitted without, `patient P` or `slide S`; empty for the predictor itself",
            ),
            _column("asked", pa.string(), "JSON: what `fit` was asked for"),
            _column("slides", pa.list_(pa.string()), "slides that it was fitted to"),
            _column("patients", pa.list_(pa.string()), "patients of these slides, as far as they are known"),
            _column("scans", pa.list_(pa.string()), "SHA-256 of these slides' scans"),
            _column("n_spots", pa.int64(), "number of spots that it was fitted to"),
            _column("n_genes", pa.int64(), "number of genes that it predicts"),
            _column("encoder", pa.string(), "encoder whose features it takes"),
            _column("digest", pa.string(), "SHA-256 of all that it was made from"),
            _column("file", pa.string(), "file that holds it, under the root's tables"),
            _column("sha256", pa.string(), "SHA-256 of that file"),
            _column("fitted_at", pa.timestamp("us", tz="UTC"), "when it was fitted"),
        ]
    ),
    inline=True,
)

REFERENCE_PREDICTIONS = Table(
    "reference_predictions",
    "a tile's expression of one gene as a fitted predictor sees it (view; stored by gene)",
    pa.schema(
        [
            _SLIDE_ID,
            _TILE_IDS,
            _column(
                "distance_to_training",
                pa.list_(pa.float32()),
                "how far the tile's features are from those that the predictor was fitted to; 1 is as far as these are from "
                "each other",
                nullable=True,
            ),
            _GENE_ASKED,
            _EXPRESSION,
            _MODEL,
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
            _SLIDE_ID,
            _TILE_IDS,
            _column(
                "is_context", pa.list_(pa.int32()), "1 if the tile's measured spot was known, else 0", nullable=True
            ),
            _GENE_ASKED,
            _EXPRESSION,
            _column(
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

STPATH_PREDICTIONS = Table(
    "stpath_predictions",
    "a tile's predicted expression of one gene, by STPath or a fitted predictor (view; stored by gene)",
    pa.schema([_SLIDE_ID, _TILE_IDS, _GENE_ASKED, _EXPRESSION, _MODEL]),
    keys=("tile_id",),
    value="expression_log1p",
    and_of=REFERENCE_PREDICTIONS,
)

EXPRESSION_BY_SLIDE = Table(
    "expression_by_slide",
    "a slide's predicted expression of one gene, over its tiles",
    pa.schema(
        [
            _SLIDE_ID,
            _column("gene", pa.string(), "gene symbol as asked for"),
            _MODEL,
            _column("tiles", pa.int64(), "number of tiles"),
            _column("mean", pa.float64(), "mean of log1p expression over the tiles"),
            _column("sd", pa.float64(), "standard deviation of the same; 0 for one tile"),
            _column("p05", pa.float64(), "5 % quantile of the same"),
            _column("median", pa.float64(), "median of the same"),
            _column("p95", pa.float64(), "95 % quantile of the same"),
            _column(
                "smoothness",
                pa.float64(),
                "Moran's I over neighbouring tiles: 1 is smooth, 0 is noise. It is no quality: predictions are smoother than "
                "what is measured. NULL if constant",
                nullable=True,
            ),
        ]
    ),
)

SPOT_EXPRESSION = Table(
    "spot_expression",
    "a spot's measured count of one gene (view; stored by gene)",
    pa.schema(
        [
            _SLIDE_ID,
            _column("spot_id", pa.list_(pa.string()), "spot or barcode, as in the measured data", nullable=True),
            _column("x_px", pa.list_(pa.float64()), "centre of the spot, level-0 pixels", nullable=True),
            _column("y_px", pa.list_(pa.float64()), "centre of the spot, level-0 pixels", nullable=True),
            _column("gene", pa.string(), "gene symbol of the measured data", nullable=True),
            _column("count", pa.list_(pa.int32()), "raw count", nullable=True),
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
            _SLIDE_ID,
            _column("verdict", pa.string(), "`ok`, or `suspect`: their scores mean little until that is explained"),
            _column("orientation", pa.string(), "what fits best: `as given`, or what to do to the spots"),
            _column("reason", pa.string(), "what is suspect, one line", nullable=True),
            _column("n_spots", pa.int64(), "number of spots"),
            _column("on_tissue", pa.float64(), "share of the spots on tissue, 0 to 1"),
            _column("depth_rho", pa.float64(), f"{_FIT}; NULL if undefined", nullable=True),
            _column("best_on_tissue", pa.float64(), "`on_tissue` in the orientation that fits best"),
            _column("best_depth_rho", pa.float64(), "`depth_rho` in the orientation that fits best", nullable=True),
        ]
    ),
    inline=True,
)

EVALUATION_METRICS = Table(
    "evaluation_metrics",
    "a slide's score for one gene, model and protocol",
    pa.schema(
        [
            _SLIDE_ID,
            _column("gene", pa.string(), "gene symbol"),
            _MODEL,
            _column(
                "protocol",
                pa.string(),
                "how they were paired, and the scale on which they were compared: `tutorial:raw_log1p` is log(1 + count), "
                "`tutorial:cp10k_log1p` is log(1 + count per 10,000 counts of the spot); `in_context(SHARE,LAYOUT,SEED):…` has "
                "only the spots whose tiles are not context",
            ),
            _column(
                "relation",
                pa.string(),
                "how the slide relates to those that a fitted predictor saw: `other patient`; `patient left out` or "
                "`slide left out`, by a copy that was fitted without it; `unknown patient`; `same patient`, only if allowed by "
                "name; NULL for STPath",
                nullable=True,
            ),
            _column("n_spots", pa.int64(), "number of spots paired with a tile"),
            _column(
                "pearson_r",
                pa.float64(),
                "Pearson correlation; NULL if either side is constant",
                nullable=True,
            ),
            _column("pearson_low", pa.float64(), "lower end of r's 95 % interval; NULL if undefined", nullable=True),
            _column("pearson_high", pa.float64(), "upper end of r's 95 % interval; NULL if undefined", nullable=True),
            _column(
                "n_effective",
                pa.float64(),
                "number of independent spots that would give r the same variance (Dutilleul 1993), which the interval is for",
                nullable=True,
            ),
            _column(
                "r_depth",
                pa.float64(),
                "Pearson correlation of the measurement with the spots' log depth (sum of counts): what depth alone says",
                nullable=True,
            ),
            _column(
                "r_beyond_depth",
                pa.float64(),
                "partial correlation of prediction and measurement given the spots' log depth",
                nullable=True,
            ),
            _column(
                "noise_ceiling",
                pa.float64(),
                "correlation that knowing the expected counts would reach, from halves of the counts; NULL if they are too few",
                nullable=True,
            ),
            _column(
                "r2",
                pa.float64(),
                "coefficient of determination; NULL if the measurement is constant",
                nullable=True,
            ),
            _column("mse", pa.float64(), "mean squared error, on the protocol's scale, squared"),
            _column(
                "mean_predicted", pa.float64(), "mean of the prediction over the spots, on its own scale", nullable=True
            ),
            _column(
                "sd_predicted", pa.float64(), "standard deviation of the same, of all spots (ddof 0)", nullable=True
            ),
            _column("mean_measured", pa.float64(), "mean of the measurement, on the protocol's scale", nullable=True),
            _column(
                "sd_measured", pa.float64(), "standard deviation of the same, of all spots (ddof 0)", nullable=True
            ),
        ]
    ),
)

MODEL_COMPARISON = Table(
    "model_comparison",
    "a difference of two models' scores for one gene of a slide, over the same spots",
    pa.schema(
        [
            _SLIDE_ID,
            _column("gene", pa.string(), "gene symbol"),
            _column("protocol", pa.string(), "as in `evaluation_metrics`"),
            _column("model", pa.string(), "one model"),
            _column("than", pa.string(), "the other model"),
            _column(
                "r_difference",
                pa.float64(),
                "Pearson r of `model` less that of `than`; NULL if either is",
                nullable=True,
            ),
            _column(
                "low", pa.float64(), "lower end of the difference's 95 % interval; NULL if undefined", nullable=True
            ),
            _column(
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
            _SLIDE_ID,
            _column("gene", pa.string(), "gene symbol"),
            _MODEL,
            _column("protocol", pa.string(), "`tutorial:raw_log1p`"),
            _column(
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
            _SLIDE_ID,
            _column("gene", pa.string(), "gene symbol as predicted"),
            _column("measured", pa.string(), "name in the measured data; NULL if it was not measured", nullable=True),
            _column(
                "how",
                pa.string(),
                "how the names were found to be one: `same`, `id version` (of Ensembl), `case`, `renamed` (an earlier or later "
                "symbol), `vocabulary` (STPath's, for measured Ensembl ids); or `not measured`",
            ),
        ]
    ),
    asset="evaluation_metrics",
)

_FACTS = _column("facts", pa.string(), "JSON: everything that the part was made from")

FINGERPRINTS = Table(
    "fingerprints",
    "a fingerprint: what parts with its digest were made from",
    pa.schema([_column("digest", pa.string(), "SHA-256 of `facts`"), _FACTS]),
    inline=True,
)

LINEAGE = Table(
    "lineage",
    "a stored part: one slide's rows of one table, and what they were made from",
    pa.schema(
        [
            _SLIDE_ID,
            _column("table_name", pa.string(), "table that the part belongs to"),
            _column("digest", pa.string(), "the part's fingerprint"),
            _column(
                "file",
                pa.string(),
                "file that holds the part, under the root's tables; NULL in the metadata",
                nullable=True,
            ),
            _column("sha256", pa.string(), "SHA-256 of that file", nullable=True),
            _column("size_bytes", pa.int64(), "size of that file, bytes", nullable=True),
            _column("row_count", pa.int64(), "rows that the part has in its view"),
            _column("made_at", pa.timestamp("us", tz="UTC"), "when the part was stored"),
            _column("damaged", pa.string(), "what was found wrong with the file, if anything", nullable=True),
            _column("summary", pa.string(), "JSON: how the rows came about, such as tiles dropped", nullable=True),
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
            _SLIDE_ID,
            _column("stage", pa.string(), "stage that failed"),
            _column("reason", pa.string(), "why, one line"),
            _column("failed_at", pa.timestamp("us", tz="UTC"), "when it was tried"),
            _column("made_from", pa.string(), "fingerprint that it was tried with, if that was known", nullable=True),
        ]
    ),
    inline=True,
)

QUARANTINE = Table(
    "quarantine",
    "a scan in the inbox that cannot be registered",
    pa.schema(
        [
            _column("uri", pa.string(), "path of the scan"),
            _column("slide_id", pa.string(), "id that it would have"),
            _column("arrival", pa.string(), "digest of file and sidecar as they were tried"),
            _column("tries", pa.int64(), "how often these were tried; three times if the process died, else once"),
            _column(
                "reason", pa.string(), "why it cannot be registered and what to do, one line; empty while it is tried"
            ),
            _column("tried_at", pa.timestamp("us", tz="UTC"), "when it was tried last"),
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
        EXPRESSION_BY_SLIDE,
        EVALUATION_METRICS,
        MODEL_COMPARISON,
        GENE_MATCHES,
        PREDICTION_ERRORS,
        LINEAGE,
        FINGERPRINTS,
        FAILURES,
        QUARANTINE,
    )
}

PART_TABLES = frozenset(TABLES) - {
    t.name for t in (SLIDES, LINEAGE, FINGERPRINTS, FAILURES, QUARANTINE, REFERENCE_MODELS)
}
"""The tables of slides' parts. The others describe the parts."""


@dataclass(frozen=True)
class View:
    """A view that is computed from tables when it is read. `sql` has a `{table}` for each table that it reads."""

    name: str
    row: str
    columns: tuple[pa.Field, ...]
    sql: str


_T_975 = (
    "12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, "
    "2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042"
)
"""97.5 % points of Student's t for 1 to 30 degrees of freedom."""

GENE_RELIABILITY = View(
    "gene_reliability",
    "how well a model predicts a gene in an organ, over all patients",
    (
        _column("gene", pa.string(), "gene symbol"),
        _column("organ", pa.string(), "organ token of STPath; NULL is its padding token", nullable=True),
        _MODEL,
        _column("protocol", pa.string(), "as in `evaluation_metrics`"),
        _column("slides", pa.int64(), "slides with an r for the gene"),
        _column("patients", pa.int64(), "patients of these; a slide whose patient is not known counts as one"),
        _column("r", pa.float64(), "mean Pearson r: of a patient's slides, then of patients, as Fisher's z"),
        _column(
            "r_low",
            pa.float64(),
            "lower end of r's 95 % interval over patients (Student's t of Fisher's z); NULL for one patient",
            nullable=True,
        ),
        _column("r_high", pa.float64(), "upper end of the same", nullable=True),
        _column("r_beyond_depth", pa.float64(), "mean of `r_beyond_depth`, likewise", nullable=True),
        _column("r_depth", pa.float64(), "mean of `r_depth`, likewise", nullable=True),
        _column("noise_ceiling", pa.float64(), "mean of `noise_ceiling` over patients", nullable=True),
        _column(
            "within_80",
            pa.float64(),
            "a spot of a new patient lies within this of its prediction, log1p, with 80 % (conformal: patients are "
            "exchangeable); NULL for other protocols, and for fewer than 4 patients",
            nullable=True,
        ),
        _column("within_95", pa.float64(), "the same with 95 %; NULL for fewer than 19 patients", nullable=True),
    ),
    # Slides whose spots do not fit, and scores that are too good to be true, say nothing of a gene. r of 1 has no z.
    f"""with scored as (
  select m.gene, s.organ, m.model, m.protocol, m.slide_id, coalesce(s.patient_id, '/' || m.slide_id) as patient,
    atanh(greatest(least(m.pearson_r, 1 - 1e-12), 1e-12 - 1)) as z,
    atanh(greatest(least(m.r_beyond_depth, 1 - 1e-12), 1e-12 - 1)) as z_beyond,
    atanh(greatest(least(m.r_depth, 1 - 1e-12), 1e-12 - 1)) as z_depth, m.noise_ceiling
  from ({{evaluation_metrics}}) m join ({{slides}}) s using (slide_id) left join ({{spot_registration}}) f using (slide_id)
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
  from ({{prediction_errors}}) e join ({{slides}}) s using (slide_id)
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
        _column("gene", pa.string(), "gene symbol"),
        _column("organ", pa.string(), "organ token of STPath; NULL is its padding token", nullable=True),
        _MODEL,
        _column("protocol", pa.string(), "as in `evaluation_metrics`, with `pooled` in the place of `tutorial`"),
        _column("slides", pa.int64(), "slides with a score for the gene"),
        _column("spots", pa.int64(), "spots of all of them"),
        _column("r_pooled", pa.float64(), "Pearson r over all spots of all slides", nullable=True),
        _column("r_within", pa.float64(), "the same, of what differs from the slide's means", nullable=True),
        _column("r_between", pa.float64(), "Pearson r of the slides' means, weighed by their spots", nullable=True),
        _column(
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
  from ({evaluation_metrics}) m join ({slides}) s using (slide_id) left join ({spot_registration}) f using (slide_id)
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

VIEWS: dict[str, View] = {v.name: v for v in (GENE_RELIABILITY, POOLED_SCORES)}


def to_markdown() -> str:
    """Return the reference of all tables, the content of docs/tables.md."""
    lines = [
        "# Tables",
        "",
        "Written by `python -m stpath_assets.tables > docs/tables.md`. Each table is a view of the lake, in its schema",
        "`main`, and a table of its schema `parts`. What is stored in files is in Parquet,",
        "`tables/parts/<table>/<slide_id>/<digest>.parquet`; small tables are kept in the lake's metadata.",
    ]
    for table in TABLES.values():
        lines += ["", f"## {table.name}", "", f"One row is {table.row}.", ""]
        if table.inline:
            lines += ["Kept in the lake's metadata.", ""]
        if table.by_gene:
            lists = ", ".join(f"`{name}`" for name in (*table.keys, table.value) if name)
            lines += [
                f"Stored by gene: {lists} are lists. The first row of a file has `gene` NULL and holds the keys "
                f"({', '.join(f'`{k}`' for k in table.keys)}); each further row is a gene, in ascending order, with its "
                f"`{table.value}` in the order of the keys. The view turns them into rows.",
                "",
            ]
        if table.section:
            lines += [f"A file has such rows for each `{table.section}`, one after another.", ""]
        if table.and_of:
            lines += [f"The view shows the rows of `{table.and_of.name}`, too.", ""]
        lines += ["| column | type | meaning |", "|---|---|---|"]
        for column in table.view_columns():
            lines.append(f"| `{column.name}` | {column.type} | {column.metadata[b'description'].decode()} |")
    for view in VIEWS.values():
        lines += ["", f"## {view.name}", "", f"One row is {view.row}. Computed when it is read.", ""]
        lines += ["| column | type | meaning |", "|---|---|---|"]
        for column in view.columns:
            lines.append(f"| `{column.name}` | {column.type} | {column.metadata[b'description'].decode()} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(to_markdown())
