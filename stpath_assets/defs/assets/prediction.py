"""The `stpath_predictions` asset: log1p expression of every tile, and maps of it."""

import dagster as dg

from stpath_assets.defs.assets.batches import PREDICTIONS_A_RUN, Report, Results, each_slide
from stpath_assets.defs.assets.spec import at_work, metadata_of, per_slide, picture
from stpath_assets.prediction import ModelChoice, store_prediction
from stpath_assets.prediction.maps import draw_maps
from stpath_assets.prediction.predict import varies
from stpath_assets.settings import Settings
from stpath_assets.stages import Plan
from stpath_assets.storage import Store
from stpath_assets.tables import STPATH_PREDICTIONS

VARIES = "varies_over_tiles"


@per_slide(
    STPATH_PREDICTIONS,
    group="prediction",
    description="Predicted by STPath for the requested genes, given organ and technology.",
    gpu=True,
    slides_a_run=PREDICTIONS_A_RUN,
    checks=[
        dg.AssetCheckSpec(
            VARIES,
            asset="stpath_predictions",
            description="Some gene differs between tiles: a constant prediction means that features or weights are broken.",
        )
    ],
)
def stpath_predictions(context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]) -> Results:
    """Predict expression and draw maps."""
    store, plan = Store.of(settings), Plan(settings)

    def predict(slide_id: str) -> Report:
        with at_work(context, settings, STPATH_PREDICTIONS, slide_id) as row:
            mine = plan.settings_of(row)
            choice = ModelChoice.for_encoder(mine.encoder, mine)
            made = store_prediction(store, row, choice, choice.panel(mine.genes))
            maps = draw_maps(store, row, settings)
        genes, moving = varies(store, slide_id)
        metadata = {
            "genes": genes,
            "model": choice.name,
            "figures": str(settings.home / "figures" / slide_id),
            **{f"map_{gene}": picture(uri, gene) for gene, uri in maps.items()},
        }
        said = metadata_of(context, settings, STPATH_PREDICTIONS, slide_id, made, metadata)
        return Report(made.fingerprint.digest, said, {VARIES: moving})

    yield from each_slide(context, predict, [VARIES])
