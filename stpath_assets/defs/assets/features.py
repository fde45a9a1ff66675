"""The `gigapath_features` asset: the embedding of each tile."""

from typing import Any

import dagster as dg

from stpath_assets.defs.assets.batches import FEATURES_A_RUN, Report, Results, each_slide
from stpath_assets.defs.assets.spec import at_work, metadata_of, per_slide
from stpath_assets.features import embedder_of, store_features
from stpath_assets.settings import Settings
from stpath_assets.stages import Plan
from stpath_assets.storage import Store
from stpath_assets.tables import GIGAPATH_FEATURES, GIGAPATH_THROUGHPUT


@per_slide(
    GIGAPATH_FEATURES,
    group="features",
    description="1536 numbers by GigaPath's tile encoder, or by the demo descriptor if `encoder` is `demo`.",
    gpu=True,
    slides_a_run=FEATURES_A_RUN,
)
def gigapath_features(context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]) -> Results:
    """Embed the tiles."""
    store, plan = Store.of(settings), Plan(settings)

    def embed(slide_id: str) -> Report:
        with at_work(context, settings, GIGAPATH_FEATURES, slide_id) as row:
            embedder = embedder_of(plan.settings_of(row))
            made = store_features(store, row, embedder, settings.batch_size)
        metadata = {"encoder": embedder.name, **_throughput(store, slide_id)}
        return Report(
            made.fingerprint.digest, metadata_of(context, settings, GIGAPATH_FEATURES, slide_id, made, metadata)
        )

    yield from each_slide(context, embed)


def _throughput(store: Store, slide_id: str) -> dict[str, Any]:
    """Return the timing of the features, or nothing for imported features."""
    if store.part(GIGAPATH_THROUGHPUT.name, slide_id) is None:
        return {}
    took = store.read(GIGAPATH_THROUGHPUT.name, slide_id).drop(["slide_id", "encoder", "finished_at"]).to_pylist()[0]
    return {name: value for name, value in took.items() if value is not None}
