"""Summarizes a slide's results for tables that people read."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from stpath_assets.prediction.predict import varies
from stpath_assets.storage import Store
from stpath_assets.tables import EVALUATION_METRICS, TILE_GRIDS


def summarize(store: Store, slide_id: str) -> dict[str, Any]:
    """Return a slide's `scored_genes`, `n_spots`, and `mean_pearson_r` if any gene has one."""
    scored = store.part(EVALUATION_METRICS.name, slide_id) is not None
    rows = store.read(EVALUATION_METRICS.name, slide_id).to_pylist() if scored else []
    r = [m["pearson_r"] for m in rows if m["pearson_r"] is not None]
    return {
        "scored_genes": len(rows),
        "n_spots": rows[0]["n_spots"] if rows else 0,
        **({"mean_pearson_r": float(np.mean(r))} if r else {}),
    }


def rows_of(store: Store, slide_ids: list[str]) -> Iterator[dict[str, Any]]:
    """Return one row per slide for a table of results: slide, tiles, genes, mean r and spots."""
    for slide_id in slide_ids:
        genes, _ = varies(store, slide_id)
        tiles = store.row_count(TILE_GRIDS.name, slide_id)
        yield {"slide_id": slide_id, "tiles": tiles, "genes": genes, **summarize(store, slide_id)}
