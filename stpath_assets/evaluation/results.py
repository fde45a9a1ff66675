"""Summarizes a slide's results for tables that people read."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from stpath_assets.evaluation.protocols import CP10K, RAW
from stpath_assets.prediction.references import relations_of
from stpath_assets.prediction.stored import models_of, predicted_genes
from stpath_assets.storage import Store
from stpath_assets.tables import EVALUATION_METRICS, SPOT_REGISTRATION, TILE_GRIDS

_MEANS = {
    "mean_pearson_r": (RAW.name, "pearson_r"),
    "mean_r_cp10k": (CP10K.name, "pearson_r"),
    "mean_r_beyond_depth": (RAW.name, "r_beyond_depth"),
    "mean_r_depth": (RAW.name, "r_depth"),
}


def summarize(store: Store, slide_id: str, model: str) -> dict[str, Any]:
    """Return a model's `scored_genes` of a slide, `n_spots`, and means over the genes for which a score is defined:
    `mean_pearson_r` of `tutorial:raw_log1p` and its `r_beyond_depth` and `r_depth`, and r of `tutorial:cp10k_log1p`.
    `undefined_r` counts the genes without an r.
    """
    scored = store.part(EVALUATION_METRICS.name, slide_id) is not None
    rows = store.read(EVALUATION_METRICS.name, slide_id).to_pylist() if scored else []
    rows = [row for row in rows if row["model"] == model]
    raw = [row for row in rows if row["protocol"] == RAW.name]
    numbers: dict[str, Any] = {
        "scored_genes": len(raw),
        "n_spots": raw[0]["n_spots"] if raw else 0,
        "undefined_r": sum(row["pearson_r"] is None for row in raw),
    }
    for name, (protocol, column) in _MEANS.items():
        values = [row[column] for row in rows if row["protocol"] == protocol and row[column] is not None]
        if values:
            numbers[name] = float(np.mean(values))
    return numbers


def rows_of(store: Store, slide_ids: list[str]) -> Iterator[dict[str, Any]]:
    """Return one row per slide and model for a table of results: tiles, genes, means, spots, whether these are suspect, and
    how the slide relates to those that the model was fitted to.
    """
    for slide_id in slide_ids:
        of_slide = {"slide_id": slide_id, "tiles": store.row_count(TILE_GRIDS.name, slide_id)}
        suspect, relations = is_suspect(store, slide_id), relations_of(store, slide_id)
        for model in models_of(store, slide_id):
            numbers = {"genes": len(predicted_genes(store, slide_id, model)), "model": model}
            related = {"relation": relations[model]} if model in relations else {}
            yield {**of_slide, **numbers, **related, "suspect": suspect, **summarize(store, slide_id, model)}


def is_suspect(store: Store, slide_id: str) -> bool:
    """Return whether a slide has measured spots that do not fit its scan."""
    if store.part(SPOT_REGISTRATION.name, slide_id) is None:
        return False
    return bool(store.read(SPOT_REGISTRATION.name, slide_id)["verdict"][0].as_py() == "suspect")
