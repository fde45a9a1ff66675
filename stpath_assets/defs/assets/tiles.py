"""The `tile_grids` asset: the tissue of a slide and the tiles on it."""

from typing import Any

import dagster as dg

from stpath_assets.defs.assets.batches import Results
from stpath_assets.defs.assets.spec import at_work, one_line_failures, per_slide, picture, result
from stpath_assets.errors import TilesLostError, TissueError
from stpath_assets.features import trident
from stpath_assets.settings import Settings
from stpath_assets.slides import Registered
from stpath_assets.spots import read_spots, require_path
from stpath_assets.storage import Store, pictures
from stpath_assets.tables import TILE_GRIDS
from stpath_assets.tiles import TileParameters, store_tiles
from stpath_assets.tiles.storing import overlay_path, tile_numbers

COVERAGE = "covers_part_of_the_slide"
LOST = "few_tiles_lost"

MAX_TISSUE = 0.98
"""Tissue share of a scan from which the mask has most likely taken glass for tissue."""


@per_slide(
    TILE_GRIDS,
    group="tiles",
    description="224 px at 0.5 µm per pixel: 112 µm a side on the scan, at any scale.",
    checks=[
        dg.AssetCheckSpec(
            COVERAGE,
            asset="tile_grids",
            description="The tissue mask covers some, but not all of the slide. A mask that covers all has most likely failed.",
        ),
        dg.AssetCheckSpec(
            LOST,
            asset="tile_grids",
            description="The quality filter dropped at most the share `max_lost` of the tiles with tissue.",
        ),
    ],
)
def tile_grids(context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]) -> Results:
    """Find tissue and place tiles. A slide without tiles fails, and so does its check."""
    store = Store.of(settings)
    with one_line_failures(), at_work(context, settings, TILE_GRIDS, context.partition_key) as row:
        parameters = _parameters(row, settings)
        try:
            made = store_tiles(store, row, parameters)
        except TissueError as e:
            yield _check(LOST if isinstance(e, TilesLostError) else COVERAGE, False, {"why": str(e)})
            raise
        numbers = tile_numbers(store, row)
        overlay = pictures.small_jpeg_of(overlay_path(store, row.slide_id), 640)
    metadata = {**numbers, "overlay": picture(overlay, "tiles kept and dropped")}
    checks = [
        _check(COVERAGE, 0 < numbers["tissue_share"] < MAX_TISSUE, {"tissue_share": numbers["tissue_share"]}),
        _check(LOST, numbers["lost"] <= settings.max_lost, {"lost": numbers["lost"], "max_lost": settings.max_lost}),
    ]
    yield result(context, settings, TILE_GRIDS, made, metadata, checks)


def _check(name: str, passed: bool, metadata: dict[str, Any]) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=passed, check_name=name, severity=dg.AssetCheckSeverity.WARN, metadata=metadata)


def _parameters(row: Registered, settings: Settings) -> TileParameters:
    """Return how the slide's tiles are placed: as in its feature file, on its spots, or on a regular grid."""
    regular = TileParameters.of(settings)
    if row.features_uri is not None:
        return regular.of_given(trident.read(row.features_uri, row).tiles)
    return regular if settings.grid == "regular" else regular.about(read_spots(require_path(row)))
