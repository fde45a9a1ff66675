"""The `stpath_predictions` asset: log1p expression of every tile, and maps of it."""

import dagster as dg

from stpath_assets.defs.assets.spec import live_slide, one_line_failures, per_slide, picture, result
from stpath_assets.prediction import ModelChoice, store_prediction
from stpath_assets.prediction.predict import CODE_VERSION
from stpath_assets.reports import draw_maps, varies
from stpath_assets.settings import Settings
from stpath_assets.storage import Store
from stpath_assets.tables import STPATH_PREDICTIONS

VARIES = "varies_over_tiles"


@per_slide(
    STPATH_PREDICTIONS,
    group="prediction",
    deps=["gigapath_features"],
    code_version=CODE_VERSION,
    description="Predicted by STPath for the genes asked for, given organ and technology.",
    gpu=True,
    checks=[
        dg.AssetCheckSpec(
            VARIES,
            asset="stpath_predictions",
            description="Some gene differs between tiles: a constant prediction means that features or weights are broken.",
        )
    ],
)
def stpath_predictions(context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]) -> dg.MaterializeResult:
    """Predicts and draws."""
    store = Store(settings.home)
    with one_line_failures():
        row = live_slide(settings, context.partition_key)
        choice = ModelChoice.for_encoder(settings.encoder, settings)
        made = store_prediction(store, row, choice, choice.panel(settings.genes))
        maps = draw_maps(store, row, settings)
        genes, moving = varies(store, row.slide_id)
    metadata = {
        "genes": genes,
        "model": choice.name,
        "figures": str(settings.home / "figures" / row.slide_id),
        **{f"map_{gene}": picture(uri, gene) for gene, uri in maps.items()},
    }
    check = dg.AssetCheckResult(passed=moving, check_name=VARIES, severity=dg.AssetCheckSeverity.ERROR)
    return result(context, settings, STPATH_PREDICTIONS, made, metadata, [check])
