"""A slide's prediction as an AnnData with all that the catalog knows of it: what exports write and notebooks read."""

import warnings
from typing import TYPE_CHECKING

import numpy as np

from stpath_assets.catalog import Catalog
from stpath_assets.errors import StorageError, StpathError
from stpath_assets.evaluation import RAW
from stpath_assets.features import read_features
from stpath_assets.prediction import ModelChoice, read_prediction
from stpath_assets.prediction.annotated import to_anndata
from stpath_assets.prediction.predict import in_order
from stpath_assets.prediction.stored import models_of, predicted_genes, read_predicted, table_of
from stpath_assets.settings import Settings
from stpath_assets.slides import Registered, Registry
from stpath_assets.spots import Spots
from stpath_assets.stages import Plan
from stpath_assets.storage import Store
from stpath_assets.storage.lake import quote
from stpath_assets.tables import STPATH_PREDICTIONS
from stpath_assets.tiles import require_current_grid
from stpath_assets.vocabulary import tokens
from stpath_assets.vocabulary.genes import Vocabulary

if TYPE_CHECKING:
    import anndata

_PROTOCOL = RAW.name
RELIABILITY = "reliability_r", "reliability_patients"
"""Columns of var: `r` and `patients` of the view `gene_reliability`, for the slide's organ and model. NaN and 0 if not known."""


def prediction_of(settings: Settings, slide_id: str, model: str | None = None) -> "anndata.AnnData":
    """Return a slide's stored prediction as `predict_expression` does, with the genes in the order asked for.

    `model` None is STPath's, or the first that there is. Raises `StorageError` if there is none, `FeatureError` if the tiles were
    made again since.
    """
    store = Store.of(settings)
    row = Registry(store).get(slide_id)
    there = models_of(store, slide_id)
    if not there or model not in (None, *there):
        what = f"no prediction by {model}; there are {', '.join(there)}" if there else "no prediction"
        raise StorageError(f"{slide_id}: it has {what}; run: stpath-assets run {slide_id}")
    chosen = model or there[0]
    vocabulary = _vocabulary(settings, row)
    if table_of(chosen)[0] == STPATH_PREDICTIONS.name:
        found = read_prediction(store, slide_id, _order(settings, row, vocabulary, store, chosen), vocabulary)
    else:
        found = _by_reference(store, slide_id, chosen, vocabulary)
    return add_reliability(found, settings)


def add_reliability(prediction: "anndata.AnnData", settings: Settings) -> "anndata.AnnData":
    """Add to var how well the model predicts each gene in the organ, over the patients of the settings' data root.

    The columns are `RELIABILITY`. Without a lake, or before anything was scored, nothing is known. A lake that cannot be asked is
    a warning: the prediction itself does not need it.
    """
    try:
        known = _reliability(prediction, settings)
    except StpathError as e:
        warnings.warn(f"how reliable genes are is not known: {e}", stacklevel=2)
        known = {}
    found = [known.get(gene, (None, 0)) for gene in prediction.var_names]
    prediction.var[RELIABILITY[0]] = np.array([np.nan if r is None else r for r, _ in found])
    prediction.var[RELIABILITY[1]] = np.array([patients for _, patients in found], np.int32)
    return prediction


def _reliability(prediction: "anndata.AnnData", settings: Settings) -> dict[str, tuple[float | None, int]]:
    """Return r and the number of patients by gene; empty without a lake."""
    if not Store.of(settings).is_there():
        return {}
    model, organ = (str(prediction.uns["histo"].get(name, "")) for name in ("model", "organ"))
    with Catalog(settings) as catalog:
        rows = catalog.sql(
            f"select gene, r, patients from gene_reliability where model = {quote(model)} and protocol = '{_PROTOCOL}' "
            f"and concat(organ, '') = {quote('' if organ == tokens.PAD else organ)}"
        ).fetchall()
    return {gene: (r, patients) for gene, r, patients in rows}


def _order(
    settings: Settings, row: Registered, vocabulary: Vocabulary | None, store: Store, model: str
) -> list[str] | None:
    """Return the stored genes in the order in which they were asked for, or None if that is not known any more."""
    stored = set(predicted_genes(store, row.slide_id, model))
    mine = Plan(settings).settings_of(row)
    try:
        asked = ModelChoice.for_encoder(mine.encoder, mine).panel(mine.genes)
    except StpathError:  # its file, or the vocabulary, is not at hand
        return None
    if asked is None:
        asked = list(vocabulary.symbols) if vocabulary is not None else None
    return asked if asked is not None and set(asked) == stored else None


def _vocabulary(settings: Settings, row: Registered) -> Vocabulary | None:
    """Return the vocabulary of the slide's model, which has Ensembl ids; None, with a warning, if it is not at hand."""
    mine = Plan(settings).settings_of(row)
    try:
        return ModelChoice.for_encoder(mine.encoder, mine).load_vocabulary()
    except StpathError as e:
        warnings.warn(f"{row.slide_id}: var has no Ensembl ids: {e}", stacklevel=3)
        return None


def _by_reference(store: Store, slide_id: str, model: str, vocabulary: Vocabulary | None) -> "anndata.AnnData":
    """Return the stored prediction of a fitted predictor."""
    part, features = read_predicted(store, slide_id, model), read_features(store, slide_id)
    require_current_grid(store, slide_id, table_of(model)[0], part.keys["tile_id"].tolist() == features.tile_ids)
    names, x = in_order(slide_id, part, None)
    row = Registry(store).get(slide_id)
    found = to_anndata(features, names, x, model, {"organ": row.organ, "tech": row.tech}, vocabulary)
    found.uns["histo"]["method"] = model.partition(":")[0]
    return found


def measured_of(spots: Spots) -> "anndata.AnnData":
    """Return measured spots as an AnnData: X (N, genes) raw counts, sparse by row, obsm['spatial'] centres in level-0 pixels."""
    import anndata
    import pandas as pd

    return anndata.AnnData(
        X=spots.counts.tocsr().astype(np.float32),
        obs=pd.DataFrame(index=spots.spot_ids),
        var=pd.DataFrame(index=spots.genes),
        obsm={"spatial": spots.xy_px},
    )
