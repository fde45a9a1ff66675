"""Summarizes a slide's results for tables that people read."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from stpath_assets.prediction.predict import varies
from stpath_assets.storage import Store
from stpath_assets.tables import EVALUATION_METRICS, SPOT_REGISTRATION, TILE_GRIDS


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
    """Return one row per slide for a table of results: slide, tiles, genes, mean r, spots, and whether these are suspect."""
    for slide_id in slide_ids:
        genes, _ = varies(store, slide_id)
        tiles = store.row_count(TILE_GRIDS.name, slide_id)
        numbers = {"tiles": tiles, "genes": genes, "suspect": is_suspect(store, slide_id)}
        yield {"slide_id": slide_id, **numbers, **summarize(store, slide_id)}


def is_suspect(store: Store, slide_id: str) -> bool:
    """Return whether a slide has measured spots that do not fit its scan."""
    if store.part(SPOT_REGISTRATION.name, slide_id) is None:
        return False
    return bool(store.read(SPOT_REGISTRATION.name, slide_id)["verdict"][0].as_py() == "suspect")
