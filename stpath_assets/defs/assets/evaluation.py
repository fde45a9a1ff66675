"""The `spot_expression` and `evaluation_metrics` assets: measured counts, and scores of the prediction."""

import dagster as dg

from stpath_assets.defs.assets.spec import at_work, one_line_failures, per_slide, picture, result
from stpath_assets.evaluation import store_metrics
from stpath_assets.evaluation.results import summarize
from stpath_assets.evaluation.scatters import draw_scatters
from stpath_assets.settings import Settings
from stpath_assets.spots import store_spots
from stpath_assets.storage import Store
from stpath_assets.tables import EVALUATION_METRICS, SPOT_EXPRESSION


@per_slide(
    SPOT_EXPRESSION,
    group="evaluation",
    description="Raw counts of the measured expression that was added with the scan, if any.",
)
def spot_expression(context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]) -> dg.MaterializeResult:
    """Read measured expression."""
    store = Store.of(settings)
    with one_line_failures(), at_work(context, settings, SPOT_EXPRESSION, context.partition_key) as row:
        made = store_spots(store, row)
    measured = store.part(SPOT_EXPRESSION.name, row.slide_id) is not None
    spots = len(store.read_by_gene(SPOT_EXPRESSION.name, row.slide_id, []).keys["spot_id"]) if measured else 0
    return result(context, settings, SPOT_EXPRESSION, made, {"spots": spots})


@per_slide(
    EVALUATION_METRICS,
    group="evaluation",
    description="Pearson r, its interval, R² and MSE of log1p counts over the spots that lie on a tile.",
)
def evaluation_metrics(context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]) -> dg.MaterializeResult:
    """Score the prediction and draw scatter plots."""
    store = Store.of(settings)
    with one_line_failures(), at_work(context, settings, EVALUATION_METRICS, context.partition_key) as row:
        made = store_metrics(store, row.slide_id)
        scatters = draw_scatters(store, row, settings)
        numbers = summarize(store, row.slide_id)
    metadata = {**numbers, **{f"scatter_{gene}": picture(uri, gene) for gene, uri in scatters.items()}}
    return result(context, settings, EVALUATION_METRICS, made, metadata)
