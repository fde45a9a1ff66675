"""Draws what a slide's or cohort's scores say at a glance: genes by rank, all genes on one page, slides by genes."""

import hashlib
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from stpath_assets.evaluation.comparisons import Layout
from stpath_assets.evaluation.protocols import CP10K
from stpath_assets.evaluation.storing import read_matches, read_scores
from stpath_assets.prediction.maps import genes_to_draw
from stpath_assets.prediction.stored import BASELINES, DEMO, models_of, read_predicted
from stpath_assets.settings import Settings
from stpath_assets.slides import Registered
from stpath_assets.spots import read_depth
from stpath_assets.storage import Store, pictures
from stpath_assets.storage.lake import NAME
from stpath_assets.tables import EVALUATION_METRICS, SPOT_EXPRESSION, TILE_GRIDS
from stpath_assets.tiles import centers_of, sides_of

MOST = 40
"""Genes that a figure of ranks shows: of more, the first and the last."""

Score = Mapping[str, Any]


def draw_overviews(store: Store, row: Registered, settings: Settings) -> dict[str, Path]:
    """Bring `ranks_genes.png` and `page_genes.png` of a slide's figures up to date: its genes by r, and its maps on one page."""
    made_from = store.fingerprint(EVALUATION_METRICS.name, row.slide_id)
    models = models_of(store, row.slide_id, baselines=False)
    scores = {} if made_from is None else {m: read_scores(store, row.slide_id, CP10K.name, m) for m in models}
    paths = {kind: pictures.path_of(store.home, row.slide_id, kind, "genes") for kind in ("ranks", "page")}
    if made_from is None or not any(scores.values()):
        for path in paths.values():
            path.unlink(missing_ok=True)
        return {}
    if not pictures.is_current(paths["ranks"], made_from.digest):
        figure = ranks({m: s for m, s in scores.items() if s}, title=f"{row.slide_id}: r per 10,000 counts")
        pictures.save(figure, paths["ranks"], made_from.digest)
    if not pictures.is_current(paths["page"], made_from.digest):
        pictures.save(_page(store, row, settings, models[0]), paths["page"], made_from.digest)
    return paths


def ranks(scores: Mapping[str, Mapping[str, Score]], *, title: str) -> Figure:
    """Draw each gene's r with its interval for each model, by the r of the first; with what depth alone says (a line) and what
    knowing the expected counts would reach (a bar). `scores` has rows of `evaluation_metrics` by model and gene.
    """
    first = next(iter(scores.values()))
    defined = sorted((g for g in first if first[g]["pearson_r"] is not None), key=lambda g: -first[g]["pearson_r"])
    shown = defined if len(defined) <= MOST else [*defined[: MOST // 2], *defined[-(MOST - MOST // 2) :]]
    figure = Figure(figsize=(6.4, 1.6 + 0.19 * max(len(shown), 4)), layout="constrained")
    axes = figure.subplots()
    y = np.arange(len(shown))
    for name, marker, colour, label in (
        ("r_depth", "|", "0.45", "r of depth"), ("noise_ceiling", "3", "#b0752e", "noise ceiling"),
    ):  # fmt: skip
        axes.scatter(
            [_number(first[g][name]) for g in shown], y, marker=marker, s=55, color=colour, label=label, zorder=1
        )
    for i, (model, of_genes) in enumerate(scores.items()):
        here = [(k, of_genes[g]) for k, g in enumerate(shown) if g in of_genes and of_genes[g]["pearson_r"] is not None]
        if not here:
            continue
        r, low, high = (
            np.array([_number(s[n]) for _, s in here]) for n in ("pearson_r", "pearson_low", "pearson_high")
        )
        at = np.array([k for k, _ in here]) + 0.22 * (i - (len(scores) - 1) / 2)
        note = f" ({pictures.DEMO_NOTE})" if model == DEMO else ""
        axes.errorbar(
            r, at, xerr=[np.nan_to_num(r - low), np.nan_to_num(high - r)], fmt="o", ms=3.5, lw=1, label=f"{model}{note}"
        )
    axes.set_yticks(y, shown, fontsize=7)
    axes.invert_yaxis()
    axes.axvline(0, color="0.7", lw=0.8, zorder=0)
    axes.set_xlabel("Pearson r with its 95 % interval")
    if len(shown) < len(defined):
        axes.axhline(MOST // 2 - 0.5, color="0.5", lw=0.8, ls=":")
        title += f"\nfirst {MOST // 2} and last {MOST - MOST // 2} of {len(defined)} genes"
    axes.set_title(title, fontsize=10)
    axes.legend(
        fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.6 / figure.get_figheight()), ncols=2, frameon=False
    )
    return figure


def _number(value: float | None) -> float:
    return np.nan if value is None else float(value)


def _page(store: Store, row: Registered, settings: Settings, model: str) -> Figure:
    names = read_matches(store, row.slide_id)
    genes = [gene for gene in genes_to_draw(store, row.slide_id, settings, model) if gene in names]
    predicted = read_predicted(store, row.slide_id, model, genes)
    measured = store.read_by_gene(SPOT_EXPRESSION.name, row.slide_id, [names[gene] for gene in genes])
    depth, tiles = read_depth(store, row.slide_id), store.read(TILE_GRIDS.name, row.slide_id)
    values = CP10K.scale(measured.values.astype(np.float64), depth.depth)
    layout = Layout(centers_of(tiles), sides_of(tiles), depth.xy_px, row.mpp_xy)
    both = {
        gene: (values[:, measured.genes.index(names[gene])], predicted.values[:, predicted.genes.index(gene)])
        for gene in genes
    }
    note = f" ({pictures.DEMO_NOTE})" if model == DEMO else ""
    return page(
        layout, both, title=f"{row.slide_id}: measured (per 10,000 counts, log1p) above predicted by {model}{note}"
    )


def page(layout: Layout, both: Mapping[str, tuple[npt.NDArray | None, npt.NDArray]], *, title: str) -> Figure:
    """Draw measured values at the spots above predicted ones at the tiles, a pair for each gene, each pair on one scale. Genes
    without measured values (None) have the second alone.
    """
    across = min(len(both), 6) or 1
    down = -(-len(both) // across) or 1
    rows = 2 if any(measured is not None for measured, _ in both.values()) else 1
    low, high = layout.limits_mm()
    ratio = float(np.clip((high[1] - low[1]) / (high[0] - low[0]), 0.4, 1.8))
    figure = Figure(figsize=(2.1 * across + 0.4, (2.1 * rows * ratio + 0.6) * down + 0.6), layout="constrained")
    panels = figure.subplots(rows * down, across, squeeze=False)
    to_mm = np.array(layout.mpp_xy) / 1000
    size = (2.1 * 72 * layout.sides_px[0] * to_mm[0] / (high[0] - low[0])) ** 2
    for axes in panels.ravel():
        axes.set_axis_off()
    for i, (gene, (measured, predicted)) in enumerate(both.items()):
        drawn = [(layout.tiles_px, predicted, "s")]
        drawn = drawn if measured is None else [(layout.spots_px, measured, "o"), *drawn]
        shown = np.concatenate([values for _, values, _ in drawn])
        for k, (xy, values, marker) in enumerate(drawn):
            axes = panels[rows * (i // across) + k, i % across]
            axes.scatter(
                *(xy * to_mm).T,
                c=values,
                s=size * 0.7,
                marker=marker,
                cmap="magma",
                vmin=shown.min(),
                vmax=shown.max(),
                lw=0,
            )
            axes.set_aspect("equal")
            axes.set_xlim(low[0], high[0])
            axes.set_ylim(high[1], low[1])
            axes.set_title(gene if k == 0 else "", fontsize=9)
    # Of few genes the page is narrower than its title: about 13 characters of this size are an inch wide.
    wide = int(13 * figure.get_size_inches()[0])
    figure.suptitle("\n".join(part for line in title.splitlines() for part in textwrap.wrap(line, wide)), fontsize=10)
    return figure


def draw_cohort(store: Store) -> dict[str, Path]:
    """Bring `figures/cohort_<model>.png` up to date for each model with two slides that is no baseline: r of slides by genes.
    Returns their paths.
    """
    folder, paths = store.home / "figures", dict[str, Path]()
    metrics = f"{NAME}.main.{EVALUATION_METRICS.name}"
    scored = f"protocol = '{CP10K.name}' and pearson_r is not null"
    models = store.rows(
        f"select model, count(distinct gene) from {metrics} where {scored} group by 1 having count(distinct slide_id) > 1"
    )
    for model, of in sorted(models):
        if model.partition(":")[0] in BASELINES:
            continue
        # Chosen in SQL: a cohort has millions of scores, and the picture some thousand.
        means = f"select gene, avg(pearson_r) as mean from {metrics} where {scored} and model = ? group by 1"
        ranked = f"select gene, row_number() over (order by mean desc, gene) as place from ({means})"
        chosen = f"select gene from ({ranked}) where place <= {MOST // 2} or place > {of - (MOST - MOST // 2)}"
        of_model = f"select slide_id, gene, pearson_r from {metrics} where {scored} and model = ?"
        found = store.rows(f"{of_model} and gene in ({chosen}) order by all", [model, model])
        paths[model] = folder / f"cohort_{model.replace(':', '-')}.png"
        digest = hashlib.sha256(repr((of, found)).encode()).hexdigest()
        if not pictures.is_current(paths[model], digest):
            pictures.save(heat_map(found, title=f"{model}: r per 10,000 counts", of=of), paths[model], digest)
    for path in folder.glob("cohort_*.png") if folder.is_dir() else ():
        if path not in paths.values():
            path.unlink(missing_ok=True)
    return paths


def heat_map(found: Sequence[tuple[str, str, float]], *, title: str, of: int | None = None) -> Figure:
    """Draw r of slides by genes, both by their mean; `found` has slide, gene and r. `of` is the number of all genes, if these
    are the first and last of them.
    """
    slides, genes = sorted({s for s, _, _ in found}), sorted({g for _, g, _ in found})
    row, column = ({name: i for i, name in enumerate(names)} for names in (slides, genes))
    r = np.full((len(slides), len(genes)), np.nan)
    for slide_id, gene, value in found:
        r[row[slide_id], column[gene]] = value
    order = np.argsort(-np.nanmean(r, axis=0), kind="stable")
    rows = np.argsort(-np.nanmean(r, axis=1), kind="stable")
    figure = Figure(figsize=(1.8 + 0.2 * max(len(order), 10), 1.8 + 0.22 * len(slides)), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(r[np.ix_(rows, order)], cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto")
    axes.set_facecolor("0.85")  # not measured, or undefined
    axes.set_xticks(range(len(order)), [genes[i] for i in order], rotation=90, fontsize=7)
    axes.set_yticks(range(len(slides)), [slides[i] for i in rows], fontsize=7)
    some = (
        f"\nfirst {MOST // 2} and last {MOST - MOST // 2} of {of} genes" if of is not None and of > len(genes) else ""
    )
    axes.set_title(title + some + (f"\n{pictures.DEMO_NOTE}" if DEMO in title else ""), fontsize=10)
    figure.colorbar(image, ax=axes, shrink=0.9, label="Pearson r")
    return figure
