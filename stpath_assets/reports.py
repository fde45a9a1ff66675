"""What is shown of a slide's results: figures on disk, small pictures, and the numbers that sum it up.

Reads stored tables and draws with `figures`; computes no result of its own.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from stpath_assets import figures
from stpath_assets.evaluation import read_pairs
from stpath_assets.progress import track
from stpath_assets.settings import Settings, split_genes
from stpath_assets.slides import Registered
from stpath_assets.storage import Store
from stpath_assets.storage.lake import NAME
from stpath_assets.tables import (
    EVALUATION_METRICS,
    STPATH_PREDICTIONS,
    TILE_GRIDS,
)
from stpath_assets.tiles import centers_of, sides_of

DEMO_MODEL = "stpath-demo"
_PICTURES = 4  # figures that are also shown in metadata: a panel is to be glanced at


def draw_maps(store: Store, row: Registered, settings: Settings) -> dict[str, str]:
    """Brings figures/<slide_id>/map_<gene>.png up to date for the chosen genes; the first few as small pictures by gene."""
    made_from = store.require(STPATH_PREDICTIONS.name, row.slide_id)
    paths = {g: figures.path_of(store.home, row.slide_id, "map", g) for g in _chosen(store, row.slide_id, settings)}
    missing = [g for g, path in paths.items() if not figures.is_current(path, made_from.digest)]
    if missing:
        part = store.read_by_gene(STPATH_PREDICTIONS.name, row.slide_id, missing)
        tiles = store.read(TILE_GRIDS.name, row.slide_id)
        with row.open() as slide:
            thumbnail = slide.thumbnail(1400, partly=settings.unreadable == "drop")
        for i, gene in track(enumerate(part.genes), f"{row.slide_id}: maps", len(part.genes)):
            figure = figures.expression_map(
                thumbnail,
                (row.width_px, row.height_px),
                centers_of(tiles),
                sides_of(tiles),
                part.values[:, i],
                title=f"{row.slide_id}: {gene}",
                mpp_xy=row.mpp_xy,
                demo=made_from.facts["model"] == DEMO_MODEL,
            )
            figures.save(figure, paths[gene], made_from.digest)
    figures.keep_only(store.home, row.slide_id, "map", paths.values())
    return _pictures(paths, 620)


def draw_scatters(store: Store, row: Registered, settings: Settings) -> dict[str, str]:
    """Brings figures/<slide_id>/scatter_<gene>.png up to date for the chosen genes that were measured; as `draw_maps`."""
    made_from = store.fingerprint(EVALUATION_METRICS.name, row.slide_id)
    if made_from is None:
        figures.keep_only(store.home, row.slide_id, "scatter", [])
        return {}
    scores = {m["gene"]: m["pearson_r"] for m in store.read(EVALUATION_METRICS.name, row.slide_id).to_pylist()}
    chosen = [g for g in _chosen(store, row.slide_id, settings) if g in scores]
    paths = {g: figures.path_of(store.home, row.slide_id, "scatter", g) for g in chosen}
    missing = [g for g, path in paths.items() if not figures.is_current(path, made_from.digest)]
    for gene, paired in read_pairs(store, row.slide_id, missing).items() if missing else ():
        figure = figures.scatter(
            paired.measured_log1p,
            paired.predicted_log1p,
            title=f"{row.slide_id}: {gene}",
            pearson_r=scores[gene],
            demo=made_from.facts["model"] == DEMO_MODEL,
        )
        figures.save(figure, paths[gene], made_from.digest)
    figures.keep_only(store.home, row.slide_id, "scatter", paths.values())
    return _pictures(paths, 360)


def varies(store: Store, slide_id: str) -> tuple[int, bool]:
    """How many genes are stored, and whether any differs between tiles (of a single tile there is no telling: yes)."""
    rows = store.rows(
        "select count(*), bool_or(len(expression_log1p) = 1 or list_min(expression_log1p) < list_max(expression_log1p)) "
        f"from {NAME}.parts.{STPATH_PREDICTIONS.name} where gene is not null and slide_id = ?",
        [slide_id],
    )
    return int(rows[0][0]), bool(rows[0][1])


def summary(store: Store, slide_id: str) -> dict[str, Any]:
    """Numbers of a slide's metrics: `scored_genes`, `n_spots`, and `mean_pearson_r` where any gene has one."""
    scored = store.part(EVALUATION_METRICS.name, slide_id) is not None
    rows = store.read(EVALUATION_METRICS.name, slide_id).to_pylist() if scored else []
    r = [m["pearson_r"] for m in rows if m["pearson_r"] is not None]
    return {
        "scored_genes": len(rows),
        "n_spots": rows[0]["n_spots"] if rows else 0,
        **({"mean_pearson_r": float(np.mean(r))} if r else {}),
    }


def _chosen(store: Store, slide_id: str, settings: Settings) -> list[str]:
    genes = [str(g) for g in store.read(STPATH_PREDICTIONS.name, slide_id, ["gene"])["gene"].drop_null()]
    return figures.chosen(genes, split_genes(settings.figure_genes))


def _pictures(paths: dict[str, Path], longest_px: int) -> dict[str, str]:
    return {g: figures.small_jpeg_of(path, longest_px) for g, path in list(paths.items())[:_PICTURES]}


def rows_of(store: Store, slide_ids: list[str]) -> Iterator[dict[str, Any]]:
    """One row a slide for a table of results: slide, tiles, genes, mean r and its spots."""
    for slide_id in slide_ids:
        genes, _ = varies(store, slide_id)
        tiles = store.row_count(TILE_GRIDS.name, slide_id)
        yield {"slide_id": slide_id, "tiles": tiles, "genes": genes, **summary(store, slide_id)}
