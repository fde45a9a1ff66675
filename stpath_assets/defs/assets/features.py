"""The `gigapath_features` asset: what the encoder sees in each tile."""

from typing import Any

import dagster as dg

from stpath_assets.defs.assets.batches import FEATURES_A_RUN, Report, Results, each_slide
from stpath_assets.defs.assets.spec import live_slide, metadata_of, one_line_failures, per_slide
from stpath_assets.features import embedder_of, store_features
from stpath_assets.features.encoders import CODE_VERSION
from stpath_assets.settings import Settings
from stpath_assets.storage import Store
from stpath_assets.tables import GIGAPATH_FEATURES, GIGAPATH_THROUGHPUT


@per_slide(
    GIGAPATH_FEATURES,
    group="features",
    deps=["tile_grids"],
    code_version=CODE_VERSION,
    description="1536 numbers by GigaPath's tile encoder, or by the demo descriptor where `encoder` says so.",
    gpu=True,
    slides_a_run=FEATURES_A_RUN,
)
def gigapath_features(context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]) -> Results:
    """Embeds the tiles."""
    store = Store(settings.home)
    with one_line_failures():
        embedder = embedder_of(settings)

    def embed(slide_id: str) -> Report:
        row = live_slide(settings, slide_id)
        made = store_features(store, row, embedder, settings.batch_size)
        metadata = {"encoder": embedder.name, **_throughput(store, slide_id)}
        return Report(
            made.fingerprint.digest, metadata_of(context, settings, GIGAPATH_FEATURES, slide_id, made, metadata)
        )

    yield from each_slide(context, embed)


def _throughput(store: Store, slide_id: str) -> dict[str, Any]:
    """What the features took when they were last made; nothing for such that were imported."""
    if slide_id not in store.slide_ids(GIGAPATH_THROUGHPUT.name):
        return {}
    took = store.read(GIGAPATH_THROUGHPUT.name, slide_id).drop(["slide_id", "encoder", "finished_at"]).to_pylist()[0]
    return {name: value for name, value in took.items() if value is not None}
