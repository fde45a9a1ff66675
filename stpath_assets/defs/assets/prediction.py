"""The `stpath_predictions` asset: log1p expression of every tile, and maps of it."""

from typing import Any

import dagster as dg

from stpath_assets.defs.assets.batches import Results, each_slide
from stpath_assets.defs.assets.metadata import picture
from stpath_assets.defs.assets.recording import Checked, Report
from stpath_assets.defs.assets.spec import per_slide
from stpath_assets.prediction import ModelChoice, store_prediction
from stpath_assets.prediction.maps import draw_maps
from stpath_assets.prediction.predict import varies
from stpath_assets.settings import Settings
from stpath_assets.slides import Registered
from stpath_assets.stages import Plan
from stpath_assets.storage import Store, pictures
from stpath_assets.tables import STPATH_PREDICTIONS
from stpath_assets.weights import own_gpu

VARIES = "varies_over_tiles"


@per_slide(
    STPATH_PREDICTIONS,
    description="Predicted by STPath for the requested genes, given organ and technology.",
    gpu=True,
    checks={
        VARIES: "Some gene differs between tiles: a constant prediction means that features or weights are broken.",
    },
)
def stpath_predictions(context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]) -> Results:
    """Predict expression and draw maps."""
    store, plan = Store.of(settings), Plan(settings)

    def predict(row: Registered) -> Report:
        mine = plan.settings_of(row)
        choice = ModelChoice.for_encoder(mine.encoder, mine)
        made = store_prediction(store, row, choice, choice.panel(mine.genes))
        maps = draw_maps(store, row, settings)

        def describe() -> dict[str, Any]:
            genes, moving = varies(store, row.slide_id)
            return {
                "genes": genes,
                "varies": moving,
                "model": choice.name,
                "figures": str(settings.home / "figures" / row.slide_id),
                **{f"map_{gene}": picture(small, gene) for gene, small in pictures.small_jpegs_of(maps, 620).items()},
            }

        return Report(made, describe, lambda metadata: [Checked(VARIES, bool(metadata["varies"]))])

    with own_gpu():
        yield from each_slide(context, settings, STPATH_PREDICTIONS, predict)
