"""The `tile_grids` asset: the tissue of a slide and the tiles on it."""

from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg

from stpath_assets.defs.assets.batches import Results, each_slide
from stpath_assets.defs.assets.metadata import picture
from stpath_assets.defs.assets.recording import Checked, Report
from stpath_assets.defs.assets.spec import per_slide
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
    description="224 px at 0.5 µm per pixel: 112 µm a side on the scan, at any scale.",
    checks={
        COVERAGE: "The tissue mask covers some, but not all of the slide. A mask that covers all has most likely failed.",
        LOST: "The quality filter dropped at most the share `max_lost` of the tiles with tissue.",
    },
)
def tile_grids(context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]) -> Results:
    """Find tissue and place tiles. A slide without tiles fails, and so does its check."""
    store = Store.of(settings)

    def tile(row: Registered) -> Report:
        made = store_tiles(store, row, _parameters(row, settings))
        return Report(made, lambda: _describe(store, row), lambda numbers: _judge(numbers, settings.max_lost))

    yield from each_slide(context, settings, TILE_GRIDS, tile, _failed_by)


def _describe(store: Store, row: Registered) -> dict[str, Any]:
    overlay = pictures.small_jpeg_of(overlay_path(store, row.slide_id), 640)
    return {**tile_numbers(store, row), "overlay": picture(overlay, "tiles kept and dropped")}


def _judge(numbers: Mapping[str, Any], max_lost: float) -> Iterator[Checked]:
    share, lost = float(numbers["tissue_share"]), float(numbers["lost"])
    yield Checked(COVERAGE, 0 < share < MAX_TISSUE, {"tissue_share": share}, warns=True)
    yield Checked(LOST, lost <= max_lost, {"lost": lost, "max_lost": max_lost}, warns=True)


def _failed_by(error: Exception) -> Iterator[Checked]:
    if isinstance(error, TissueError):
        yield Checked(LOST if isinstance(error, TilesLostError) else COVERAGE, False, {"why": str(error)}, warns=True)


def _parameters(row: Registered, settings: Settings) -> TileParameters:
    """Return how the slide's tiles are placed: as in its feature file, on its spots, or on a regular grid."""
    regular = TileParameters.of(settings)
    if row.features_uri is not None:
        return regular.of_given(trident.read(row.features_uri, row).tiles)
    return regular if settings.grid == "regular" else regular.about(read_spots(require_path(row)))
