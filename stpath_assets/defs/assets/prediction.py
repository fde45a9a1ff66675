"""The assets of predictions: log1p expression of every tile by STPath (`stpath_predictions`) and by predictors that were fitted
to measured slides (`reference_predictions`), and maps of it.
"""

from typing import Any

import dagster as dg

from stpath_assets.defs.assets.batches import Results, each_slide
from stpath_assets.defs.assets.metadata import picture
from stpath_assets.defs.assets.recording import Checked, Report
from stpath_assets.defs.assets.spec import per_slide
from stpath_assets.prediction import ModelChoice, store_prediction
from stpath_assets.prediction.maps import draw_maps
from stpath_assets.prediction.predict import varies
from stpath_assets.prediction.references import STPATH, asked_models, relations_of, store_references
from stpath_assets.prediction.stored import models_of
from stpath_assets.prediction.summaries import store_summary
from stpath_assets.settings import Settings
from stpath_assets.slides import Registered
from stpath_assets.stages import Plan
from stpath_assets.storage import Outcome, Store, pictures
from stpath_assets.tables import (
    EXPRESSION_BY_SLIDE,
    GIGAPATH_FEATURES,
    REFERENCE_MODELS,
    REFERENCE_PREDICTIONS,
    STPATH_PREDICTIONS,
)
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
        if STPATH not in asked_models(mine):
            store.remove([STPATH_PREDICTIONS.name], row.slide_id)
            pictures.keep_only(store.home, row.slide_id, "map", [])
            made = Outcome(store.require(GIGAPATH_FEATURES.name, row.slide_id), False)
            return Report(made, lambda: {"genes": 0, "varies": True})
        choice = ModelChoice.for_encoder(mine.encoder, mine)
        made = store_prediction(store, row, choice, choice.panel(mine.genes))
        maps = draw_maps(store, row, settings, choice.name)

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


@per_slide(
    REFERENCE_PREDICTIONS,
    description="Predicted by those predictors of `reference_models` that the setting `models` names.",
    also=[REFERENCE_MODELS.name],
)
def reference_predictions(context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]) -> Results:
    """Predict by fitted predictors, and draw maps."""
    store, plan = Store.of(settings), Plan(settings)

    def predict(row: Registered) -> Report:
        made = store_references(store, row, plan.settings_of(row))
        models = models_of(store, row.slide_id, baselines=False)
        fitted = [model for model in models if model in relations_of(store, row.slide_id)]
        maps = {model: draw_maps(store, row, settings, model) for model in fitted}
        pictures.keep_only_models(store.home, row.slide_id, fitted)

        def describe() -> dict[str, Any]:
            shown = {
                f"map_{gene}_{model}": picture(small, f"{gene} {model}")
                for model, of in maps.items()
                for gene, small in pictures.small_jpegs_of(of, 620).items()
            }
            return {"models": ", ".join(fitted) or "none", **shown}

        return Report(made, describe)

    yield from each_slide(context, settings, REFERENCE_PREDICTIONS, predict)


@per_slide(
    EXPRESSION_BY_SLIDE,
    description="Mean, spread, quantiles and smoothness of each gene over a slide's tiles, for each model.",
)
def expression_by_slide(context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]) -> Results:
    """Summarize predictions by gene."""
    store = Store.of(settings)
    yield from each_slide(
        context, settings, EXPRESSION_BY_SLIDE, lambda row: Report(store_summary(store, row.slide_id))
    )
