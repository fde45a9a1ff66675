"""Draws scatter plots of predicted against measured expression, one PNG per chosen gene."""

from pathlib import Path

import numpy.typing as npt
from matplotlib.figure import Figure

from stpath_assets.evaluation.comparisons import said
from stpath_assets.evaluation.protocols import RAW
from stpath_assets.evaluation.storing import read_pairs, read_scores
from stpath_assets.prediction.maps import genes_to_draw
from stpath_assets.prediction.stored import DEMO, models_of
from stpath_assets.settings import Settings
from stpath_assets.slides import Registered
from stpath_assets.storage import Store, pictures
from stpath_assets.tables import EVALUATION_METRICS


def draw_scatters(store: Store, row: Registered, settings: Settings) -> dict[str, Path]:
    """Bring figures/<slide_id>/scatter_<gene>.png up to date for the chosen genes that were measured, of the slide's first
    model; see `draw_maps`.
    """
    made_from = store.fingerprint(EVALUATION_METRICS.name, row.slide_id)
    if made_from is None:
        pictures.keep_only(store.home, row.slide_id, "scatter", [])
        return {}
    model = models_of(store, row.slide_id)[0]
    scores = read_scores(store, row.slide_id, RAW.name, model)
    chosen = [g for g in genes_to_draw(store, row.slide_id, settings, model) if g in scores]
    paths = {g: pictures.path_of(store.home, row.slide_id, "scatter", g) for g in chosen}
    missing = [g for g, path in paths.items() if not pictures.is_current(path, made_from.digest)]
    for gene, paired in read_pairs(store, row.slide_id, model, missing).items() if missing else ():
        figure = scatter(
            paired.measured_log1p,
            paired.predicted_log1p,
            title=f"{row.slide_id}: {gene}" + (f", {model}" if model != DEMO else ""),
            score=said(scores[gene]),
            demo=model == DEMO,
        )
        pictures.save(figure, paths[gene], made_from.digest)
    pictures.keep_only(store.home, row.slide_id, "scatter", paths.values())
    return paths


def scatter(measured_log1p: npt.NDArray, predicted_log1p: npt.NDArray, *, title: str, score: str, demo: bool) -> Figure:
    """Plot predicted against measured log1p expression of the K paired spots, each (K,), and the line on which both are equal."""
    figure = Figure(figsize=(4.6, 4.6), layout="constrained")
    axes = figure.subplots()
    axes.scatter(measured_log1p, predicted_log1p, s=12, alpha=0.55, color="#5b2a86", linewidths=0)
    axes.set_xlabel("measured, log1p count")
    axes.set_ylabel("predicted, log1p expression")
    ends = [
        float(min(measured_log1p.min(), predicted_log1p.min())),
        float(max(measured_log1p.max(), predicted_log1p.max())),
    ]
    axes.plot(ends, ends, color="0.4", linewidth=0.8, linestyle="--", label="equal")
    axes.legend(loc="upper left", fontsize=8, frameon=False)
    axes.set_title(f"{title}\n{score}" + (f"\n{pictures.DEMO_NOTE}" if demo else ""), fontsize=10)
    axes.grid(alpha=0.25)
    return figure
