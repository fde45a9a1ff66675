"""The `tile_grids` asset: the tissue of a slide and the tiles over it."""

import dagster as dg

from stpath_assets import figures
from stpath_assets.defs.assets.spec import live_slide, one_line_failures, per_slide, picture, result
from stpath_assets.settings import Settings
from stpath_assets.storage import Store
from stpath_assets.tables import TILE_GRIDS
from stpath_assets.tiles import TileParameters, Tiles, store_tiles
from stpath_assets.tiles.tiling import CODE_VERSION, covered

COVERAGE = "covers_part_of_the_slide"


@per_slide(
    TILE_GRIDS,
    group="tiles",
    deps=["slides"],
    code_version=CODE_VERSION,
    description="224 px at 0.5 µm per pixel: 112 µm a side on the scan, whatever its scale.",
    checks=[
        dg.AssetCheckSpec(
            COVERAGE,
            asset="tile_grids",
            description="Tiles cover some, but not all of the slide: a mask that takes everything has most likely failed.",
        )
    ],
)
def tile_grids(context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]) -> dg.MaterializeResult:
    """Finds tissue and lays the grid."""
    store = Store(settings.home)
    with one_line_failures():
        row = live_slide(settings, context.partition_key)
        made = store_tiles(store, row, TileParameters(min_tissue=settings.min_tissue))
        with row.open() as slide:
            tiles = Tiles(slide, store.read(TILE_GRIDS.name, row.slide_id))
            grid, share = tiles.grid, covered(tiles)
            overlay = figures.grid_overlay(
                slide.thumbnail(840), (row.width_px, row.height_px), grid.x_px, grid.y_px, grid.side_px
            )
    metadata = {
        "tiles": len(tiles),
        "side_px": grid.side_px,
        "enlargement": tiles.enlargement,
        "covered": share,
        "overlay": picture(figures.small_jpeg(overlay, 640), "tiles kept"),
    }
    check = dg.AssetCheckResult(
        passed=0 < share < 1, check_name=COVERAGE, severity=dg.AssetCheckSeverity.WARN, metadata={"covered": share}
    )
    return result(context, settings, TILE_GRIDS, made, metadata, [check])
