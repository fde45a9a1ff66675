"""Tiles: tissue detection, the grid of tiles over the tissue, and the tiles' pixels.

The second stage of the data flow. It reads slides and knows nothing about encoders.
"""

from stpath_assets.tiles.grid import TILE_MPP, TILE_PX
from stpath_assets.tiles.layouts import GivenTiles, Layout, RegularGrid, SpotGrid
from stpath_assets.tiles.quality import QualityParameters
from stpath_assets.tiles.regions import Regions, read_regions
from stpath_assets.tiles.storing import require_current_grid, store_tiles
from stpath_assets.tiles.survey import TileParameters
from stpath_assets.tiles.tiling import Tiles, centers_of, sides_of, tile
from stpath_assets.tiles.tissue import TissueParameters

__all__ = [
    "TILE_MPP",
    "TILE_PX",
    "GivenTiles",
    "Layout",
    "QualityParameters",
    "RegularGrid",
    "Regions",
    "SpotGrid",
    "TileParameters",
    "Tiles",
    "TissueParameters",
    "centers_of",
    "read_regions",
    "require_current_grid",
    "sides_of",
    "store_tiles",
    "tile",
]
