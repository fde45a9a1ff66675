"""Writes tiles and features in TRIDENT's layout, for its tools."""

from pathlib import Path

from stpath_assets.exports.formats import Wanted
from stpath_assets.features import read_features, trident
from stpath_assets.settings import Settings
from stpath_assets.slides import Registry
from stpath_assets.storage import Store
from stpath_assets.tables import TILE_GRIDS


def write(settings: Settings, wanted: Wanted, path: Path) -> None:
    """Write a slide's stored tiles and features."""
    write_trident(Store.of(settings), wanted.slide_id, path)


def write_trident(store: Store, slide_id: str, path: Path) -> Path:
    """Write a slide's stored tiles and features in TRIDENT's layout (`features.trident`).

    Raises `StorageError` if they are missing or the file cannot be written, `FeatureError` if they do not belong together.
    """
    row, features = Registry(store).get(slide_id), read_features(store, slide_id)
    tiles = store.read(TILE_GRIDS.name, slide_id)
    # Only a regular grid has a stride. On spots, the overlap of tiles varies.
    stride = float(store.require(TILE_GRIDS.name, slide_id).facts.get("tile_stride", 1.0))
    overlap_px = max(0, round((1 - stride) * tiles["tile_px"][0].as_py()))
    return trident.write(path, row, tiles, features.matrix, features.facts, overlap_px)
