"""Tiles: where a slide holds tissue, the grid of tiles over it, and their pixels.

Second stage of the way of the data: reads slides, knows nothing of encoders.
"""

from stpath_assets.tiles.tiling import TileParameters, Tiles, centers_of, store_tiles, tile

__all__ = ["TileParameters", "Tiles", "centers_of", "store_tiles", "tile"]
