"""Draws maps of predicted expression over the tissue, one PNG per chosen gene."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

from stpath_assets.prediction.stored import DEMO, predicted_genes, read_predicted, table_of
from stpath_assets.progress import track
from stpath_assets.settings import Settings, split_genes
from stpath_assets.slides import Registered
from stpath_assets.storage import Store, pictures
from stpath_assets.tables import TILE_GRIDS
from stpath_assets.tiles import centers_of, sides_of

MAX_GENES = 12
"""Panels up to this size get a figure for every gene; larger ones only for the genes in the settings."""


def draw_maps(store: Store, row: Registered, settings: Settings, model: str) -> dict[str, Path]:
    """Bring map_<gene>.png of a model up to date for the chosen genes, in the slide's figures. Returns their paths, by gene."""
    made_from = store.require(table_of(model)[0], row.slide_id)
    paths = {
        g: pictures.path_of(store.home, row.slide_id, "map", g, model)
        for g in genes_to_draw(store, row.slide_id, settings, model)
    }
    missing = [g for g, path in paths.items() if not pictures.is_current(path, made_from.digest)]
    if missing:
        part = read_predicted(store, row.slide_id, model, missing)
        tiles = store.read(TILE_GRIDS.name, row.slide_id)
        with row.open() as slide:
            thumbnail = slide.thumbnail(1400, partly=settings.unreadable == "drop")
        for i, gene in track(enumerate(part.genes), f"{row.slide_id}: maps", len(part.genes)):
            figure = expression_map(
                thumbnail,
                (row.width_px, row.height_px),
                centers_of(tiles),
                sides_of(tiles),
                part.values[:, i],
                title=f"{row.slide_id}: {gene}" + (f", {model}" if ":" in model else ""),
                mpp_xy=row.mpp_xy,
                demo=model == DEMO,
            )
            pictures.save(figure, paths[gene], made_from.digest)
    pictures.keep_only(store.home, row.slide_id, "map", paths.values(), model)
    return paths


def genes_to_draw(store: Store, slide_id: str, settings: Settings, model: str) -> list[str]:
    """Return the genes of a slide's stored prediction by a model that get figures."""
    return pick_genes(predicted_genes(store, slide_id, model), split_genes(settings.figure_genes))


def pick_genes(genes: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """Return the genes of a panel that get a figure: all of a small panel, else those in `wanted`, else its first."""
    if len(genes) <= MAX_GENES:
        return list(genes)
    return [g for g in wanted if g in set(genes)][:MAX_GENES] or list(genes)[:MAX_GENES]


def expression_map(
    thumbnail: npt.NDArray[np.uint8],
    size_px: tuple[int, int],
    centers_px: npt.NDArray[np.float64],
    sides_px: tuple[float, float],
    values: npt.NDArray[np.float32],
    *,
    title: str,
    mpp_xy: tuple[float, float],
    demo: bool,
) -> Figure:
    """Draw the slide's thumbnail, and next to it the tiles' values in the colour map magma.

    `size_px` is the slide's (width, height). `centers_px` (N, 2) and `sides_px` (along x and y) are level-0 pixels, `mpp_xy`
    is µm per pixel along x and y, `values` (N,) log1p expression. Axes are in mm from the slide's top-left corner.
    """
    to_mm, sides = np.array(mpp_xy) / 1000, np.array(sides_px)
    extent = (0.0, size_px[0] * to_mm[0], size_px[1] * to_mm[1], 0.0)
    # Show the tissue with a margin: on a wide glass, a small section would be a speck.
    low = np.maximum((centers_px.min(0) - 3 * sides) * to_mm, 0)
    high = np.minimum((centers_px.max(0) + 3 * sides) * to_mm, (extent[1], extent[2]))
    height_to_width = float(np.clip((high[1] - low[1]) / (high[0] - low[0]), 0.4, 1.8))
    figure = Figure(figsize=(9.4, 4.1 * height_to_width + 0.9), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    for axes in (left, right):
        axes.imshow(thumbnail, extent=extent, interpolation="bilinear", alpha=1.0 if axes is left else 0.35)
        axes.set_xlabel("mm")
        axes.set_aspect("equal")
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * sides / 2
    squares = PolyCollection(
        (centers_px[:, None, :] + corners[None]) * to_mm, array=values, cmap="magma", edgecolors="face", linewidths=0.1
    )
    right.add_collection(squares)
    left.set_ylabel("mm")
    left.set_title("scan", fontsize=10)
    right.set_title("predicted log1p expression" + (f" ({pictures.DEMO_NOTE})" if demo else ""), fontsize=10)
    right.set_xlim(low[0], high[0])
    right.set_ylim(high[1], low[1])
    figure.colorbar(squares, ax=right, shrink=0.85)
    figure.suptitle(title)
    return figure
