"""Scores and pictures of a prediction in a notebook, without a data root.

scores = sa.evaluate(pred, "visium/outs")
sa.plot(pred, ["ERBB2", "CD74"], "visium/outs")
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stpath_assets.errors import SpotsError, VocabularyError
from stpath_assets.evaluation.pairing import pair
from stpath_assets.evaluation.protocols import CP10K
from stpath_assets.evaluation.scores import Values
from stpath_assets.evaluation.storing import metrics_of
from stpath_assets.prediction.stored import DEMO
from stpath_assets.spots import Spots, read_spots
from stpath_assets.storage.pictures import DEMO_NOTE
from stpath_assets.tiles import TILE_PX
from stpath_assets.vocabulary.matching import match_genes

if TYPE_CHECKING:
    import anndata
    import pandas as pd
    from matplotlib.figure import Figure


def evaluate(pred: "anndata.AnnData", spots: str | Path | Spots) -> "pd.DataFrame":
    """Score a prediction of `predict_expression` against measured spots, as the platform does.

    `spots` is what `stpath-assets add --spots` takes, on the same scan. Returns the columns of `evaluation_metrics`, a row for
    each gene that was measured and each protocol (docs/evaluation.md). Raises `SpotsError` if spots cannot be read, or if none
    of them lies on a tile.
    """
    import pandas as pd

    measured, side_px = read_measured(spots), _side_px(pred)
    spot, tile = pair(measured.xy_px, pred.obsm["spatial"], side_px)
    if not len(spot):
        raise SpotsError(f"none of the {len(measured.spot_ids)} spots lies on a tile; are they of this scan?")
    place = {gene: i for i, gene in enumerate(measured.genes)}
    matches = match_genes(list(pred.var_names), measured.genes)
    columns = {m.gene: place[m.measured] for m in matches if m.measured is not None}
    genes = list(columns)

    def read(some: Sequence[str]) -> tuple[Values, Values]:
        counts = measured.counts[:, [columns[gene] for gene in some]].toarray()
        return np.asarray(pred[:, list(some)].X, np.float64)[tile], counts[spot].astype(np.float64)

    xy_um = measured.xy_px[spot] * float(pred.uns["histo"]["slide_mpp"])
    slide_id = str(pred.obs["library_id"].iloc[0])
    tables = list(metrics_of(slide_id, str(pred.uns["histo"]["model"]), measured.depth[spot], xy_um, read, genes))
    return pd.concat([table.to_pandas() for table in tables], ignore_index=True) if tables else pd.DataFrame()


def plot(pred: "anndata.AnnData", genes: str | Sequence[str], spots: str | Path | Spots | None = None) -> "Figure":
    """Draw predictions on their tiles, beside the measurement (log1p of counts per 10,000) if spots are given.

    One gene is drawn large; of several, each is a small map, with what was measured above it. Returns a figure, which a notebook
    shows. Raises `VocabularyError` for a gene that was not predicted, `SpotsError` for one that was not measured.
    """
    from stpath_assets.evaluation.comparisons import Layout, comparison
    from stpath_assets.evaluation.overviews import page

    chosen = [genes] if isinstance(genes, str) else list(dict.fromkeys(genes))
    if missing := [gene for gene in chosen if gene not in set(pred.var_names)]:
        raise VocabularyError(f"{', '.join(missing)}: not among the {pred.n_vars} predicted genes; predict them first")
    mpp, side_px = float(pred.uns["histo"]["slide_mpp"]), _side_px(pred)
    places, values = np.empty((0, 2)), dict[str, Any]()
    if spots is not None:
        measured = read_measured(spots)
        if missing := [gene for gene in chosen if gene not in set(measured.genes)]:
            raise SpotsError(f"{', '.join(missing)}: not measured; leave them out")
        counts = measured.counts[:, [measured.genes.index(gene) for gene in chosen]].toarray().astype(np.float64)
        places, scaled = measured.xy_px, CP10K.scale(counts, measured.depth)
        values = {gene: scaled[:, i] for i, gene in enumerate(chosen)}
    layout = Layout(np.asarray(pred.obsm["spatial"]), (side_px, side_px), places, (mpp, mpp))
    model, slide_id = str(pred.uns["histo"]["model"]), str(pred.obs["library_id"].iloc[0])
    by = f"predicted by {model}" + (f"\n({DEMO_NOTE})" if model == DEMO else "")
    of_genes = {gene: np.asarray(pred[:, [gene]].X)[:, 0] for gene in chosen}
    scale = "" if spots is None else ", log1p of counts per 10,000"
    if isinstance(genes, str):
        return _shown(comparison(layout, {by: of_genes[genes]}, values.get(genes), title=f"{slide_id}: {genes}{scale}"))
    said = by if spots is None else f"measured{scale}, above {by}"
    return _shown(page(layout, {g: (values.get(g), of_genes[g]) for g in chosen}, title=f"{slide_id}: {said}"))


def _shown(figure: "Figure") -> "Figure":
    """Return a figure that a notebook shows: one that is made without pyplot has no picture there."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    def png() -> bytes:
        buffer = io.BytesIO()
        FigureCanvasAgg(figure).print_png(buffer)
        return buffer.getvalue()

    figure._repr_png_ = png  # type: ignore[attr-defined]
    return figure


def read_measured(spots: str | Path | Spots) -> Spots:
    """Return measured spots, read from what `stpath-assets add --spots` takes unless they are given as they are."""
    return spots if isinstance(spots, Spots) else read_spots(Path(spots))


def _side_px(pred: "anndata.AnnData") -> float:
    """Return a tile's side in level-0 pixels; GigaPath's tiles have 224 pixels at the tiles' scale."""
    return TILE_PX * float(pred.uns["histo"]["mpp"]) / float(pred.uns["histo"]["slide_mpp"])
