"""The `spot_expression` and `evaluation_metrics` assets: what was measured, and how well the prediction agrees."""

import dagster as dg

from stpath_assets.defs.assets.spec import live_slide, one_line_failures, per_slide, picture, result
from stpath_assets.evaluation import store_metrics, store_spots
from stpath_assets.evaluation.score import CODE_VERSION as SCORE_VERSION
from stpath_assets.evaluation.spots import CODE_VERSION as SPOTS_VERSION
from stpath_assets.reports import draw_scatters, summary
from stpath_assets.settings import Settings
from stpath_assets.storage import Store
from stpath_assets.tables import EVALUATION_METRICS, SPOT_EXPRESSION


@per_slide(
    SPOT_EXPRESSION,
    group="evaluation",
    deps=["slides"],
    code_version=SPOTS_VERSION,
    description="Raw counts of the measured expression that came with the scan; empty where none did.",
)
def spot_expression(context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]) -> dg.MaterializeResult:
    """Reads measured expression."""
    store = Store(settings.home)
    with one_line_failures():
        row = live_slide(settings, context.partition_key)
        made = store_spots(store, row)
    spots = len(store.read_by_gene(SPOT_EXPRESSION.name, row.slide_id, []).keys["spot_id"])
    return result(context, settings, SPOT_EXPRESSION, made, {"spots": spots})


@per_slide(
    EVALUATION_METRICS,
    group="evaluation",
    deps=["stpath_predictions", "spot_expression", "tile_grids"],
    code_version=SCORE_VERSION,
    description="Pearson r, its interval, R² and MSE of log1p counts over the spots that lie on a tile.",
)
def evaluation_metrics(context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]) -> dg.MaterializeResult:
    """Scores and draws."""
    store = Store(settings.home)
    with one_line_failures():
        row = live_slide(settings, context.partition_key)
        made = store_metrics(store, row.slide_id)
        scatters = draw_scatters(store, row, settings)
        numbers = summary(store, row.slide_id)
    metadata = {**numbers, **{f"scatter_{gene}": picture(uri, gene) for gene, uri in scatters.items()}}
    return result(context, settings, EVALUATION_METRICS, made, metadata)
