"""What is shown of a slide's results: figures on disk, small pictures, and the numbers that sum it up.

Reads stored tables and draws with `figures`; computes no result of its own.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from stpath_assets import figures
from stpath_assets.evaluation import read_pairs
from stpath_assets.progress import track
from stpath_assets.settings import Settings, split_genes
from stpath_assets.slides import Registered, Registry
from stpath_assets.storage import Store
from stpath_assets.tables import (
    EVALUATION_METRICS,
    GIGAPATH_FEATURES,
    SPOT_EXPRESSION,
    STPATH_PREDICTIONS,
    TILE_GRIDS,
)
from stpath_assets.tiles import centers_of

# Which tables a table is made from; every one is also made from the slide.
_MADE_FROM: dict[str, list[str]] = {
    TILE_GRIDS.name: [],
    GIGAPATH_FEATURES.name: [TILE_GRIDS.name],
    STPATH_PREDICTIONS.name: [GIGAPATH_FEATURES.name],
    SPOT_EXPRESSION.name: [],
    EVALUATION_METRICS.name: [STPATH_PREDICTIONS.name, SPOT_EXPRESSION.name],
}

_PICTURES = 4  # figures that are also shown in metadata: a panel is to be glanced at


def draw_maps(store: Store, row: Registered, settings: Settings) -> dict[str, str]:
    """Writes figures/<slide_id>/map_<gene>.png for the chosen genes; the first few as small pictures by gene."""
    genes = _chosen(store, row.slide_id, settings)
    part = store.read_by_gene(STPATH_PREDICTIONS.name, row.slide_id, genes)
    tiles, demo = store.read(TILE_GRIDS.name, row.slide_id), _is_demo(store, row.slide_id)
    with row.open() as slide:
        thumbnail = slide.thumbnail(1400)
    pictures: dict[str, str] = {}
    for i, gene in track(enumerate(part.genes), f"{row.slide_id}: maps", len(part.genes)):
        figure = figures.expression_map(
            thumbnail,
            (row.width_px, row.height_px),
            centers_of(tiles),
            float(tiles["side_px"][0].as_py()),
            part.values[:, i],
            title=f"{row.slide_id}: {gene}",
            mpp=row.mpp,
            demo=demo,
        )
        figures.save(figure, figures.path_of(store.home, row.slide_id, "map", gene))
        if len(pictures) < _PICTURES:
            pictures[gene] = figures.small_jpeg(figure, 620)
    return pictures


def draw_scatters(store: Store, row: Registered, settings: Settings) -> dict[str, str]:
    """Writes figures/<slide_id>/scatter_<gene>.png for the chosen genes that were measured; the first few as small pictures."""
    pairs = read_pairs(store, row.slide_id, _chosen(store, row.slide_id, settings))
    scores = {m["gene"]: m["pearson_r"] for m in store.read(EVALUATION_METRICS.name, row.slide_id).to_pylist()}
    demo = _is_demo(store, row.slide_id)
    pictures: dict[str, str] = {}
    for gene, paired in track(pairs.items(), f"{row.slide_id}: scatters", len(pairs)):
        figure = figures.scatter(
            paired.measured_log1p,
            paired.predicted_log1p,
            title=f"{row.slide_id}: {gene}",
            pearson_r=scores.get(gene),
            demo=demo,
        )
        figures.save(figure, figures.path_of(store.home, row.slide_id, "scatter", gene))
        if len(pictures) < _PICTURES:
            pictures[gene] = figures.small_jpeg(figure, 360)
    return pictures


def varies(store: Store, slide_id: str) -> tuple[int, bool]:
    """The number of predicted genes, and whether any differs between tiles (true of a single tile, which cannot)."""
    part = store.read_by_gene(STPATH_PREDICTIONS.name, slide_id)
    return len(part.genes), bool(len(part.values) == 1 or (np.ptp(part.values, axis=0) > 0).any())


def summary(store: Store, slide_id: str) -> dict[str, Any]:
    """Numbers of a slide's metrics: `scored_genes`, `n_spots`, and `mean_pearson_r` where any gene has one."""
    rows = store.read(EVALUATION_METRICS.name, slide_id).to_pylist()
    r = [m["pearson_r"] for m in rows if m["pearson_r"] is not None]
    return {
        "scored_genes": len(rows),
        "n_spots": rows[0]["n_spots"] if rows else 0,
        **({"mean_pearson_r": float(np.mean(r))} if r else {}),
    }


def _chosen(store: Store, slide_id: str, settings: Settings) -> list[str]:
    genes = [str(g) for g in store.read(STPATH_PREDICTIONS.name, slide_id, ["gene"])["gene"].drop_null()]
    return figures.chosen(genes, split_genes(settings.figure_genes))


def _is_demo(store: Store, slide_id: str) -> bool:
    return store.require(STPATH_PREDICTIONS.name, slide_id).facts["model"] == "stpath-demo"


def stages_of(store: Store) -> list[dict[str, str]]:
    """A row for each registered slide: its status, and for each table `yes`, `outdated` (made from something else) or `no`."""
    rows = []
    for slide in Registry(store).all():
        row = {"slide": slide.slide_id, "status": slide.status}
        for name, earlier in _MADE_FROM.items():
            stored = store.fingerprint(name, slide.slide_id)
            bases = [slide.fingerprint, *(store.fingerprint(e, slide.slide_id) for e in earlier)]
            current = stored is not None and all(b is not None and stored.extends(b) for b in bases)
            row[name] = "no" if stored is None else "yes" if current else "outdated"
        rows.append(row)
    return rows


def rows_of(store: Store, slide_ids: list[str]) -> Iterator[dict[str, Any]]:
    """One row a slide for a table of results: slide, tiles, genes, mean r and its spots."""
    for slide_id in slide_ids:
        genes, _ = varies(store, slide_id)
        tiles = store.row_count(TILE_GRIDS.name, slide_id)
        yield {"slide_id": slide_id, "tiles": tiles, "genes": genes, **summary(store, slide_id)}
