"""Tiles: where a slide holds tissue, the grid of tiles over it, and their pixels.

Second stage of the way of the data: reads slides, knows nothing of encoders.
"""

from stpath_assets.tiles.given import GivenTiles
from stpath_assets.tiles.quality import QualityParameters
from stpath_assets.tiles.regions import Regions, read_regions
from stpath_assets.tiles.survey import TileParameters
from stpath_assets.tiles.tiling import Tiles, centers_of, sides_of, store_tiles, tile
from stpath_assets.tiles.tissue import TissueParameters

__all__ = [
    "GivenTiles",
    "QualityParameters",
    "Regions",
    "TileParameters",
    "Tiles",
    "TissueParameters",
    "centers_of",
    "read_regions",
    "sides_of",
    "store_tiles",
    "tile",
]
