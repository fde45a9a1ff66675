"""The `gigapath_features` asset: the embedding of each tile."""

from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg
import numpy as np

from stpath_assets.defs.assets.batches import Results, each_slide
from stpath_assets.defs.assets.recording import Checked, Report
from stpath_assets.defs.assets.spec import per_slide
from stpath_assets.features import embedder_of, store_features
from stpath_assets.settings import Settings
from stpath_assets.slides import Registered
from stpath_assets.stages import Plan
from stpath_assets.storage import Store
from stpath_assets.tables import FEATURE_DIM, GIGAPATH_FEATURES, GIGAPATH_THROUGHPUT
from stpath_assets.weights import own_gpu

DISTINCT = "finite_and_distinct"
_AT_ONCE = 4096


@per_slide(
    GIGAPATH_FEATURES,
    description="1536 numbers by GigaPath's tile encoder, or by the demo descriptor if `encoder` is `demo`.",
    gpu=True,
    checks={
        DISTINCT: "The features are finite, and differ between tiles: equal ones mean that encoder or pixels are broken."
    },
)
def gigapath_features(context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]) -> Results:
    """Embed the tiles."""
    store, plan = Store.of(settings), Plan(settings)

    def embed(row: Registered) -> Report:
        embedder = embedder_of(plan.settings_of(row))
        made = store_features(store, row, embedder, settings.batch_size)

        def describe() -> dict[str, Any]:
            return {"encoder": embedder.name, **_spread(store, row.slide_id), **_throughput(store, row.slide_id)}

        return Report(made, describe, _judge)

    with own_gpu():
        yield from each_slide(context, settings, GIGAPATH_FEATURES, embed)


def _spread(store: Store, slide_id: str) -> dict[str, Any]:
    """Return how many features are not finite, and the largest range of one over the tiles."""
    column, rows, not_finite = store.read(GIGAPATH_FEATURES.name, slide_id)["feature"], 0, 0
    least, most = np.full(FEATURE_DIM, np.inf, np.float32), np.full(FEATURE_DIM, -np.inf, np.float32)
    for chunk in column.chunks:
        for start in range(0, len(chunk), _AT_ONCE):
            features = chunk.slice(start, _AT_ONCE).flatten().to_numpy(zero_copy_only=False).reshape(-1, FEATURE_DIM)
            rows, not_finite = rows + len(features), not_finite + int((~np.isfinite(features)).sum())
            least, most = np.minimum(least, features.min(axis=0)), np.maximum(most, features.max(axis=0))
    spread = 0.0 if not_finite or not rows else float((most - least).max())
    return {"tiles_embedded": rows, "not_finite": not_finite, "largest_range": spread}


def _judge(numbers: Mapping[str, Any]) -> Iterator[Checked]:
    distinct = numbers["largest_range"] > 0 or numbers["tiles_embedded"] < 2
    yield Checked(DISTINCT, distinct and not numbers["not_finite"])


def _throughput(store: Store, slide_id: str) -> dict[str, Any]:
    """Return the timing of the features, or nothing for imported features."""
    if store.part(GIGAPATH_THROUGHPUT.name, slide_id) is None:
        return {}
    took = store.read(GIGAPATH_THROUGHPUT.name, slide_id).drop(["slide_id", "encoder", "finished_at"]).to_pylist()[0]
    return {name: value for name, value in took.items() if value is not None}
