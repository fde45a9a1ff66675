"""What is stored of a slide's predictions, whichever model made them."""

from collections.abc import Sequence

from stpath_assets.prediction.references import relations_of
from stpath_assets.storage import Store
from stpath_assets.storage.by_gene import ByGene
from stpath_assets.storage.fingerprint import Fingerprint
from stpath_assets.storage.lake import NAME
from stpath_assets.tables import CONTEXT_PREDICTIONS, REFERENCE_PREDICTIONS, STPATH_PREDICTIONS
from stpath_assets.tiles import require_current_grid

DEMO = "stpath-demo"
"""STPath with the demo weights: no biology, and everything that shows it says so."""

INTERPOLATION = "interpolation_only"
"""Prediction from measured spots of the slide alone, without its image."""

BASELINES = ("depth_only", "mean")
"""Kinds of predictors that others are compared with. They get no figures."""


def models_of(store: Store, slide_id: str, baselines: bool = True) -> list[str]:
    """Return the models that have predicted a slide, STPath's first."""
    of_stpath = store.fingerprint(STPATH_PREDICTIONS.name, slide_id)
    fitted = [m for m in relations_of(store, slide_id) if baselines or m.partition(":")[0] not in BASELINES]
    return [*([] if of_stpath is None else [str(of_stpath.facts["model"])]), *fitted]


def require_predictions(store: Store, slide_id: str) -> list[Fingerprint]:
    """Return what a slide's predictions were made from, STPath's first. Raises `FeatureError` if its tiles were made again
    since.
    """
    both = (STPATH_PREDICTIONS.name, REFERENCE_PREDICTIONS.name)
    return [require_current_grid(store, slide_id, t) for t in both if store.part(t, slide_id) is not None]


def predicted_genes(store: Store, slide_id: str, model: str) -> list[str]:
    """Return the genes of a slide's prediction by a model, in stored order."""
    table, section = table_of(model)
    query = f"select gene from {NAME}.parts.{table} where gene is not null and slide_id = ?"
    mine = " and model = ?" if section is not None else ""
    rows = store.rows(f"{query}{mine} order by gene", [slide_id, *([section] if section is not None else [])])
    return [str(gene) for (gene,) in rows]


def read_predicted(store: Store, slide_id: str, model: str, genes: Sequence[str] | None = None) -> ByGene:
    """Return a slide's prediction by a model: log1p expression (N, G) of all genes or the existing ones of `genes`."""
    table, section = table_of(model)
    return store.read_by_gene(table, slide_id, genes, section)


def table_of(model: str) -> tuple[str, str | None]:
    """Return the table of a model's predictions, and its section there."""
    if model == INTERPOLATION or model.endswith(")"):
        return CONTEXT_PREDICTIONS.name, model
    return (REFERENCE_PREDICTIONS.name, model) if ":" in model else (STPATH_PREDICTIONS.name, None)
