"""The `gigapath_features` asset: what the encoder sees in each tile."""

import dagster as dg

from stpath_assets.defs.assets.spec import live_slide, one_line_failures, per_slide, result
from stpath_assets.features import EncoderChoice, store_features
from stpath_assets.features.embedding import CODE_VERSION
from stpath_assets.settings import Settings
from stpath_assets.storage import Store
from stpath_assets.tables import GIGAPATH_FEATURES


@per_slide(
    GIGAPATH_FEATURES,
    group="features",
    deps=["tile_grids"],
    code_version=CODE_VERSION,
    description="1536 numbers by GigaPath's tile encoder, or by the demo descriptor where `encoder` says so.",
    gpu=True,
)
def gigapath_features(context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]) -> dg.MaterializeResult:
    """Embeds the tiles."""
    with one_line_failures():
        row = live_slide(settings, context.partition_key)
        choice = EncoderChoice.of(settings.encoder, settings)
        made = store_features(Store(settings.home), row, choice, settings.batch_size)
    return result(context, settings, GIGAPATH_FEATURES, made, {"encoder": choice.name})
