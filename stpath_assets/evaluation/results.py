"""Summarizes a slide's results for tables that people read."""

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from stpath_assets.evaluation.protocols import PROTOCOLS, Protocol, protocols_of
from stpath_assets.evaluation.storing import read_context
from stpath_assets.prediction.references import relations_of
from stpath_assets.prediction.stored import models_of, predicted_genes
from stpath_assets.storage import Store
from stpath_assets.tables import EVALUATION_METRICS, SPOT_REGISTRATION, TILE_GRIDS

_MEANS = {
    "mean_pearson_r": (0, "pearson_r"),
    "mean_r_cp10k": (1, "pearson_r"),
    "mean_r_beyond_depth": (0, "r_beyond_depth"),
    "mean_r_depth": (0, "r_depth"),
}
"""Means by name: of which of a design's protocols, and of which column."""


def read_metrics(store: Store, slide_id: str) -> pa.Table:
    """Return a slide's `evaluation_metrics`; no row if it has none."""
    if store.part(EVALUATION_METRICS.name, slide_id) is None:
        return EVALUATION_METRICS.schema.empty_table()
    return store.read(EVALUATION_METRICS.name, slide_id)


def summarize(metrics: pa.Table, model: str, these: Sequence[Protocol] = PROTOCOLS) -> dict[str, Any]:
    """Return a model's `scored_genes`, `n_spots`, and means over the genes for which a score is defined: `mean_pearson_r` of the
    first protocol (raw counts) and its `r_beyond_depth` and `r_depth`, and r of the second (counts per 10,000). `undefined_r`
    counts the genes without an r. `metrics` are a slide's (`read_metrics`).
    """
    mine = [metrics.filter((pc.field("model") == model) & (pc.field("protocol") == p.name)) for p in these]
    raw = mine[0]
    numbers: dict[str, Any] = {
        "scored_genes": raw.num_rows,
        "n_spots": raw["n_spots"][0].as_py() if raw.num_rows else 0,
        "undefined_r": raw["pearson_r"].null_count,
    }
    means = {name: pc.mean(mine[which][column]).as_py() for name, (which, column) in _MEANS.items()}
    return numbers | {name: mean for name, mean in means.items() if mean is not None}


def rows_of(store: Store, slide_ids: list[str]) -> Iterator[dict[str, Any]]:
    """Return one row per slide, design and model for a table of results: tiles, genes, means, spots, whether these are suspect,
    and how the slide relates to those that the model was fitted to. The design is `tutorial`, or in context.
    """
    for slide_id in slide_ids:
        of_slide = {"slide_id": slide_id, "tiles": store.row_count(TILE_GRIDS.name, slide_id)}
        suspect, relations, known = (
            is_suspect(store, slide_id),
            relations_of(store, slide_id),
            read_context(store, slide_id),
        )
        plain, metrics = models_of(store, slide_id), read_metrics(store, slide_id)
        designs = {"tutorial": plain} | ({known.protocol: [*plain, *known.models]} if known.models else {})
        for design, models in designs.items():
            for model in models:
                yield {
                    **of_slide,
                    "design": design,
                    "genes": len(predicted_genes(store, slide_id, model)),
                    "model": model,
                    **({"relation": relations[model]} if model in relations else {}),
                    "suspect": suspect,
                    **summarize(metrics, model, protocols_of(design)),
                }


def is_suspect(store: Store, slide_id: str) -> bool:
    """Return whether a slide has measured spots that do not fit its scan."""
    if store.part(SPOT_REGISTRATION.name, slide_id) is None:
        return False
    return bool(store.read(SPOT_REGISTRATION.name, slide_id)["verdict"][0].as_py() == "suspect")
