"""The assets of what was measured: counts (`spot_expression`), whether they fit the scan (`spot_registration`), and the
prediction's scores (`evaluation_metrics`).
"""

from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg

from stpath_assets.defs.assets.batches import Results, each_slide
from stpath_assets.defs.assets.metadata import picture
from stpath_assets.defs.assets.recording import Checked, Report
from stpath_assets.defs.assets.spec import per_slide
from stpath_assets.evaluation import store_metrics, store_registration
from stpath_assets.evaluation.comparisons import draw_comparisons
from stpath_assets.evaluation.in_context import ContextChoice, store_context
from stpath_assets.evaluation.overviews import draw_overviews
from stpath_assets.evaluation.results import read_metrics, summarize
from stpath_assets.evaluation.scatters import draw_scatters
from stpath_assets.evaluation.storing import read_context
from stpath_assets.prediction import ModelChoice
from stpath_assets.prediction.references import STPATH, asked_models
from stpath_assets.prediction.stored import models_of
from stpath_assets.settings import Settings
from stpath_assets.slides import Registered
from stpath_assets.spots import store_spots
from stpath_assets.stages import Plan
from stpath_assets.storage import Store, pictures
from stpath_assets.tables import CONTEXT_PREDICTIONS, EVALUATION_METRICS, SPOT_EXPRESSION, SPOT_REGISTRATION
from stpath_assets.weights import own_gpu


@per_slide(
    SPOT_EXPRESSION,
    description="Raw counts of the measured expression that was added with the scan, if any.",
)
def spot_expression(context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]) -> Results:
    """Read measured expression."""
    store = Store.of(settings)

    def read(row: Registered) -> Report:
        return Report(store_spots(store, row), lambda: {"spots": _count_spots(store, row.slide_id)})

    yield from each_slide(context, settings, SPOT_EXPRESSION, read)


def _count_spots(store: Store, slide_id: str) -> int:
    if store.part(SPOT_EXPRESSION.name, slide_id) is None:
        return 0
    return len(store.read_by_gene(SPOT_EXPRESSION.name, slide_id, []).keys["spot_id"])


@per_slide(
    CONTEXT_PREDICTIONS,
    description="For scores in context: by STPath that is given some spots, and by what this must be compared with.",
    gpu=True,
)
def context_predictions(context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]) -> Results:
    """Predict with some measured spots known."""
    store, plan = Store.of(settings), Plan(settings)

    def predict(row: Registered) -> Report:
        mine = plan.settings_of(row)
        model = ModelChoice.for_encoder(mine.encoder, mine)
        made = store_context(store, row, ContextChoice.of(mine.context), model)
        return Report(made, lambda: {"models": ", ".join(read_context(store, row.slide_id).models) or "none"})

    with own_gpu():
        yield from each_slide(context, settings, CONTEXT_PREDICTIONS, predict)


FITS = "spots_fit_the_scan"


@per_slide(
    SPOT_REGISTRATION,
    description="Spots that are mirrored, turned or of another section give scores that look like those of a weak model.",
    checks={
        FITS: "The measured spots lie on tissue, and no other orientation, resolution or section fits better.",
    },
)
def spot_registration(context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]) -> Results:
    """Check whether measured spots fit the scan."""
    store = Store.of(settings)

    def look(row: Registered) -> Report:
        made = store_registration(store, row)
        return Report(made, lambda: _fit(store, row.slide_id), _judge)

    yield from each_slide(context, settings, SPOT_REGISTRATION, look)


def _fit(store: Store, slide_id: str) -> dict[str, Any]:
    if store.part(SPOT_REGISTRATION.name, slide_id) is None:
        return {"verdict": "no spots"}
    (found,) = store.read(SPOT_REGISTRATION.name, slide_id).drop(["slide_id"]).to_pylist()
    return {name: value for name, value in found.items() if value is not None}


def _judge(numbers: Mapping[str, Any]) -> Iterator[Checked]:
    why = {"reason": numbers["reason"]} if "reason" in numbers else {}
    yield Checked(FITS, numbers["verdict"] != "suspect", why, warns=True)


@per_slide(
    EVALUATION_METRICS,
    description="Pearson r, its interval, R² and MSE of log1p counts over the spots that lie on a tile.",
)
def evaluation_metrics(context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]) -> Results:
    """Score the prediction and draw scatter plots."""
    store, plan = Store.of(settings), Plan(settings)

    def score(row: Registered) -> Report:
        mine = plan.settings_of(row)
        model = ModelChoice.for_encoder(mine.encoder, mine)
        made = store_metrics(store, row.slide_id, model.load_vocabulary if STPATH in asked_models(mine) else None)
        scatters, comparisons = draw_scatters(store, row, settings), draw_comparisons(store, row, settings)
        overviews = draw_overviews(store, row, settings)

        def describe() -> dict[str, Any]:
            drawn = {
                "compare": pictures.small_jpegs_of(comparisons, 620),
                "scatter": pictures.small_jpegs_of(scatters, 360),
            }
            shown = {f"{kind}_{gene}": picture(uri, gene) for kind, of in drawn.items() for gene, uri in of.items()}
            models, metrics = models_of(store, row.slide_id), read_metrics(store, row.slide_id)
            # Numbers of the first model have the plain names, which the UI plots over slides.
            numbers = {f"{name}_{m}" if i else name: value for i, m in enumerate(models)
                       for name, value in summarize(metrics, m).items()}  # fmt: skip
            shown |= {kind: picture(pictures.small_jpeg_of(path, 620), kind) for kind, path in overviews.items()}
            return {**numbers, "models": ", ".join(models), **shown}

        return Report(made, describe)

    yield from each_slide(context, settings, EVALUATION_METRICS, score)
