"""Draws measured beside predicted expression, one PNG per chosen gene of a slide with spots: the scan, the spots, the tiles."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection, PolyCollection
from matplotlib.figure import Figure

from stpath_assets.evaluation.protocols import CP10K
from stpath_assets.evaluation.storing import read_matches, read_scores
from stpath_assets.prediction.maps import genes_to_draw
from stpath_assets.prediction.stored import DEMO, models_of, read_predicted
from stpath_assets.settings import Settings
from stpath_assets.slides import Registered
from stpath_assets.spots import read_depth
from stpath_assets.storage import Store, pictures
from stpath_assets.tables import EVALUATION_METRICS, SPOT_EXPRESSION, TILE_GRIDS
from stpath_assets.tiles import centers_of, sides_of

Points = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Layout:
    """Where tiles and spots of a slide lie: centres (N, 2) and (M, 2) in level-0 pixels, the tiles' sides along x and y in the
    same, and µm per pixel along x and y. Without spots, `spots_px` is empty.
    """

    tiles_px: Points
    sides_px: tuple[float, float]
    spots_px: Points
    mpp_xy: tuple[float, float]

    def limits_mm(self) -> tuple[Points, Points]:
        """Return the corners of what is shown, mm: tiles and spots with a margin of a tile."""
        both, sides = np.concatenate([self.tiles_px, self.spots_px]), np.array(self.sides_px)
        to_mm = np.array(self.mpp_xy) / 1000
        return (both.min(axis=0) - 1.5 * sides) * to_mm, (both.max(axis=0) + 1.5 * sides) * to_mm


def draw_comparisons(store: Store, row: Registered, settings: Settings) -> dict[str, Path]:
    """Bring figures/<slide_id>/compare_<gene>.png up to date for the chosen genes that were measured; see `draw_maps`."""
    made_from = store.fingerprint(EVALUATION_METRICS.name, row.slide_id)
    models = models_of(store, row.slide_id, baselines=False)
    scores = {} if made_from is None else {m: read_scores(store, row.slide_id, CP10K.name, m) for m in models}
    if made_from is None or not any(scores.values()):
        pictures.keep_only(store.home, row.slide_id, "compare", [])
        return {}
    drawn = {m: [g for g in genes_to_draw(store, row.slide_id, settings, m) if g in scores[m]] for m in models}
    chosen = sorted({gene for genes in drawn.values() for gene in genes})
    paths = {g: pictures.path_of(store.home, row.slide_id, "compare", g) for g in chosen}
    missing = [g for g, path in paths.items() if not pictures.is_current(path, made_from.digest)]
    if missing:
        predicted = {model: read_predicted(store, row.slide_id, model, missing) for model in models}
        names = read_matches(store, row.slide_id)
        measured = store.read_by_gene(SPOT_EXPRESSION.name, row.slide_id, [names[gene] for gene in missing])
        depth, tiles = read_depth(store, row.slide_id), store.read(TILE_GRIDS.name, row.slide_id)
        layout = Layout(centers_of(tiles), sides_of(tiles), depth.xy_px, row.mpp_xy)
        with row.open() as slide:
            scan = slide.thumbnail(1400, partly=settings.unreadable == "drop")
        values = CP10K.scale(measured.values.astype(np.float64), depth.depth)
        for gene in missing:
            by = {m: p.values[:, p.genes.index(gene)] for m, p in predicted.items() if gene in drawn[m]}
            figure = comparison(
                layout,
                {f"{_of(m)}\n{said(scores[m][gene])}": values for m, values in by.items()},
                values[:, measured.genes.index(names[gene])],
                title=f"{row.slide_id}: {gene}, log1p of counts per 10,000",
                scan=(scan, (row.width_px, row.height_px)),
            )
            pictures.save(figure, paths[gene], made_from.digest)
    pictures.keep_only(store.home, row.slide_id, "compare", paths.values())
    return paths


def _of(model: str) -> str:
    return f"predicted by {model}" + (f" ({pictures.DEMO_NOTE})" if model == DEMO else "")


def said(score: "dict[str, float | None]") -> str:
    """Return r with its interval and the number of spots, in words."""
    r, low, high = (score[name] for name in ("pearson_r", "pearson_low", "pearson_high"))
    interval = "" if low is None or high is None else f" ({low:.2f} to {high:.2f})"
    return ("r undefined" if r is None else f"r = {r:.2f}{interval}") + f", {score['n_spots']:.0f} spots"


def comparison(
    layout: Layout,
    predicted: Mapping[str, npt.NDArray],
    measured: npt.NDArray | None,
    *,
    title: str,
    scan: tuple[npt.NDArray[np.uint8], tuple[int, int]] | None = None,
) -> Figure:
    """Draw the scan, measured values (M,) at the spots and predicted ones (N,) on the tiles, on one colour scale; mm from the
    scan's corner.

    `predicted` has the values of one or more models, by the title of their panel. `measured` None leaves its panel out, and so
    does `scan` None, else its image and the size of level 0.
    """
    low, high = layout.limits_mm()
    height_to_width = float(np.clip((high[1] - low[1]) / (high[0] - low[0]), 0.4, 1.8))
    panels = ["scan"] * (scan is not None) + ["measured"] * (measured is not None) + list(predicted)
    figure = Figure(figsize=(3.9 * len(panels) + 1.0, 3.7 * height_to_width + 1.6), layout="compressed")
    axes: dict[str, Axes] = dict(zip(panels, np.atleast_1d(figure.subplots(1, len(panels))), strict=True))
    to_mm = np.array(layout.mpp_xy) / 1000
    for name, one in axes.items():
        if scan is not None:
            image, (width, height) = scan
            extent = (0.0, width * to_mm[0], height * to_mm[1], 0.0)
            one.imshow(image, extent=extent, interpolation="bilinear", alpha=1.0 if name == "scan" else 0.3)
        one.set_aspect("equal")
        one.set_xlim(low[0], high[0])
        one.set_ylim(high[1], low[1])
        one.set_xlabel("mm")
        one.set_title(name, fontsize=10)
    shown = np.concatenate([*predicted.values(), *([] if measured is None else [measured])])
    least, most = float(np.min(shown)), float(np.max(shown))
    sides = np.array(layout.sides_px)
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * sides / 2
    for name, values in predicted.items():
        squares = PolyCollection((layout.tiles_px[:, None] + corners[None]) * to_mm, array=values, cmap="magma")
        squares.set_edgecolor("face")
        squares.set_clim(least, most)
        axes[name].add_collection(squares)
    if measured is not None:
        across = np.full(len(layout.spots_px), float(sides[0] * to_mm[0]) * 0.9)
        circles = EllipseCollection(
            across, across, np.zeros(len(across)), units="x", offsets=layout.spots_px * to_mm,
            offset_transform=axes["measured"].transData, array=measured, cmap="magma",
        )  # fmt: skip
        circles.set_clim(least, most)
        axes["measured"].add_collection(circles)
    figure.colorbar(squares, ax=axes[panels[-1]], shrink=0.85)
    figure.suptitle(title, fontsize=11)
    return figure
