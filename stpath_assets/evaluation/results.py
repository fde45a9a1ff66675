"""Summarizes a slide's results for tables that people read."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

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


def summarize(store: Store, slide_id: str, model: str, these: Sequence[Protocol] = PROTOCOLS) -> dict[str, Any]:
    """Return a model's `scored_genes` of a slide, `n_spots`, and means over the genes for which a score is defined:
    `mean_pearson_r` of the first protocol (raw counts) and its `r_beyond_depth` and `r_depth`, and r of the second (counts per
    10,000). `undefined_r` counts the genes without an r.
    """
    scored = store.part(EVALUATION_METRICS.name, slide_id) is not None
    rows = store.read(EVALUATION_METRICS.name, slide_id).to_pylist() if scored else []
    of_protocol = [[r for r in rows if (r["model"], r["protocol"]) == (model, p.name)] for p in these]
    raw = of_protocol[0]
    numbers: dict[str, Any] = {
        "scored_genes": len(raw),
        "n_spots": raw[0]["n_spots"] if raw else 0,
        "undefined_r": sum(row["pearson_r"] is None for row in raw),
    }
    for name, (which, column) in _MEANS.items():
        values = [row[column] for row in of_protocol[which] if row[column] is not None]
        if values:
            numbers[name] = float(np.mean(values))
    return numbers


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
        plain = models_of(store, slide_id)
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
                    **summarize(store, slide_id, model, protocols_of(design)),
                }


def is_suspect(store: Store, slide_id: str) -> bool:
    """Return whether a slide has measured spots that do not fit its scan."""
    if store.part(SPOT_REGISTRATION.name, slide_id) is None:
        return False
    return bool(store.read(SPOT_REGISTRATION.name, slide_id)["verdict"][0].as_py() == "suspect")
