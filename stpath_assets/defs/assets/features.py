"""The `gigapath_features` asset: the embedding of each tile."""

from typing import Any

import dagster as dg

from stpath_assets.defs.assets.batches import Results, each_slide
from stpath_assets.defs.assets.recording import Report
from stpath_assets.defs.assets.spec import per_slide
from stpath_assets.features import embedder_of, store_features
from stpath_assets.settings import Settings
from stpath_assets.slides import Registered
from stpath_assets.stages import Plan
from stpath_assets.storage import Store
from stpath_assets.tables import GIGAPATH_FEATURES, GIGAPATH_THROUGHPUT


@per_slide(
    GIGAPATH_FEATURES,
    description="1536 numbers by GigaPath's tile encoder, or by the demo descriptor if `encoder` is `demo`.",
    gpu=True,
)
def gigapath_features(context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]) -> Results:
    """Embed the tiles."""
    store, plan = Store.of(settings), Plan(settings)

    def embed(row: Registered) -> Report:
        embedder = embedder_of(plan.settings_of(row))
        made = store_features(store, row, embedder, settings.batch_size)
        return Report(made, lambda: {"encoder": embedder.name, **_throughput(store, row.slide_id)})

    yield from each_slide(context, settings, GIGAPATH_FEATURES, embed)


def _throughput(store: Store, slide_id: str) -> dict[str, Any]:
    """Return the timing of the features, or nothing for imported features."""
    if store.part(GIGAPATH_THROUGHPUT.name, slide_id) is None:
        return {}
    took = store.read(GIGAPATH_THROUGHPUT.name, slide_id).drop(["slide_id", "encoder", "finished_at"]).to_pylist()[0]
    return {name: value for name, value in took.items() if value is not None}
