"""Draws scatter plots of predicted against measured expression, one PNG per chosen gene."""

from pathlib import Path

import numpy.typing as npt
from matplotlib.figure import Figure

from stpath_assets.evaluation.evaluate import read_pairs
from stpath_assets.evaluation.protocols import RAW
from stpath_assets.prediction.maps import genes_to_draw
from stpath_assets.settings import Settings
from stpath_assets.slides import Registered
from stpath_assets.storage import Store, pictures
from stpath_assets.tables import EVALUATION_METRICS


def draw_scatters(store: Store, row: Registered, settings: Settings) -> dict[str, Path]:
    """Bring figures/<slide_id>/scatter_<gene>.png up to date for the chosen genes that were measured; see `draw_maps`."""
    made_from = store.fingerprint(EVALUATION_METRICS.name, row.slide_id)
    if made_from is None:
        pictures.keep_only(store.home, row.slide_id, "scatter", [])
        return {}
    metrics = store.read(EVALUATION_METRICS.name, row.slide_id).to_pylist()
    scores = {m["gene"]: m["pearson_r"] for m in metrics if m["protocol"] == RAW.name}
    chosen = [g for g in genes_to_draw(store, row.slide_id, settings) if g in scores]
    paths = {g: pictures.path_of(store.home, row.slide_id, "scatter", g) for g in chosen}
    missing = [g for g, path in paths.items() if not pictures.is_current(path, made_from.digest)]
    for gene, paired in read_pairs(store, row.slide_id, missing).items() if missing else ():
        figure = scatter(
            paired.measured_log1p,
            paired.predicted_log1p,
            title=f"{row.slide_id}: {gene}",
            pearson_r=scores[gene],
            demo=made_from.facts["model"] == "stpath-demo",
        )
        pictures.save(figure, paths[gene], made_from.digest)
    pictures.keep_only(store.home, row.slide_id, "scatter", paths.values())
    return paths


def scatter(
    measured_log1p: npt.NDArray, predicted_log1p: npt.NDArray, *, title: str, pearson_r: float | None, demo: bool
) -> Figure:
    """Plot predicted against measured log1p expression of the K paired spots, each (K,), with r in the title."""
    figure = Figure(figsize=(4.6, 4.6), layout="constrained")
    axes = figure.subplots()
    axes.scatter(measured_log1p, predicted_log1p, s=12, alpha=0.55, color="#5b2a86", linewidths=0)
    axes.set_xlabel("measured, log1p count")
    axes.set_ylabel("predicted, log1p expression")
    r = "r undefined" if pearson_r is None else f"r = {pearson_r:.3f}"
    axes.set_title(
        f"{title}: {r}, n = {len(measured_log1p)}" + (f"\n{pictures.DEMO_NOTE}" if demo else ""), fontsize=10
    )
    axes.grid(alpha=0.25)
    return figure
