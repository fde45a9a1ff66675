"""Scores a slide's stored prediction against its measured spots, and stores `evaluation_metrics`.

Reading measurements is in `spots`, scoring in `score`.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stpath_assets.evaluation import score
from stpath_assets.storage import Outcome, Store
from stpath_assets.storage.fingerprint import Fingerprint
from stpath_assets.tables import EVALUATION_METRICS, SPOT_EXPRESSION, STPATH_PREDICTIONS, TILE_GRIDS
from stpath_assets.tiles import centers_of, require_current_grid, sides_of


@dataclass(frozen=True)
class Paired:
    """The K spots of a slide that have a tile, for one gene: measured and predicted log1p expression, each (K,)."""

    measured_log1p: npt.NDArray[np.float64]
    predicted_log1p: npt.NDArray[np.float32]


def metrics_from(predicted: Fingerprint, measured: Fingerprint) -> Fingerprint:
    """Return the fingerprint of a slide's `evaluation_metrics` from those of its prediction and its spots."""
    facts = {k: v for k, v in measured.facts.items() if k not in predicted.facts}
    return predicted.extend(EVALUATION_METRICS.name, score.CODE_VERSION, protocol=score.PROTOCOL, **facts)


def store_metrics(store: Store, slide_id: str) -> Outcome:
    """Bring a slide's `evaluation_metrics` up to date with its stored prediction and spots.

    A slide without measured spots has no metrics. If no spot lies on a tile, the table is empty. A note says so.
    """
    predicted_from = require_current_grid(store, slide_id, STPATH_PREDICTIONS.name)
    measured_from = store.fingerprint(SPOT_EXPRESSION.name, slide_id)
    if measured_from is None:
        store.remove([EVALUATION_METRICS.name], slide_id)
        note = f"{slide_id}: has no measured spots (--spots), so it is not scored"
        return Outcome(predicted_from, False, (note,))
    fingerprint = metrics_from(predicted_from, measured_from)
    if store.is_current(EVALUATION_METRICS.name, slide_id, fingerprint):
        return Outcome(fingerprint, False)
    measured = store.read_by_gene(SPOT_EXPRESSION.name, slide_id)
    predicted = store.read_by_gene(STPATH_PREDICTIONS.name, slide_id)
    spot, tile = _pairs(store, slide_id, measured.keys)
    notes = []
    if len(spot) == 0:
        notes.append(
            f"{slide_id}: none of its {len(measured.keys['spot_id'])} spots lies on a tile, so its metrics are empty"
        )
    table, missing = score.metrics_table(
        slide_id,
        str(predicted_from.facts["model"]),
        predicted.genes,
        predicted.values[tile],
        measured.genes,
        measured.values[spot],
    )
    if missing and len(spot):
        some = ", ".join(missing[:5]) + (", …" if len(missing) > 5 else "")
        notes.append(f"{slide_id}: {len(missing)} predicted genes were not measured and are not scored: {some}")
    store.write(EVALUATION_METRICS.name, slide_id, table, fingerprint)
    return Outcome(fingerprint, True, tuple(notes))


def read_pairs(store: Store, slide_id: str, genes: list[str]) -> dict[str, Paired]:
    """Return the paired values of those `genes` that are both predicted and measured."""
    require_current_grid(store, slide_id, STPATH_PREDICTIONS.name)
    measured = store.read_by_gene(SPOT_EXPRESSION.name, slide_id, genes)
    predicted = store.read_by_gene(STPATH_PREDICTIONS.name, slide_id, genes)
    spot, tile = _pairs(store, slide_id, measured.keys)
    columns = {g: i for i, g in enumerate(measured.genes)}
    return {
        g: Paired(np.log1p(measured.values[spot, columns[g]].astype(float)), predicted.values[tile, i])
        for i, g in enumerate(predicted.genes)
        if g in columns and len(spot)
    }


def _pairs(
    store: Store, slide_id: str, spot_keys: dict[str, npt.NDArray]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    tiles = store.read(TILE_GRIDS.name, slide_id)
    xy = np.stack([spot_keys["x_px"], spot_keys["y_px"]], axis=1).astype(np.float64)
    side_px, side_y_px = sides_of(tiles)
    # Distances are physical: scaled to pixels of x, in which a tile is square even if the scan's pixels are not.
    square = (1.0, side_px / side_y_px)
    return score.pair(xy * square, centers_of(tiles) * square, side_px)
