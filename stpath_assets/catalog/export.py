"""Exports of a slide's prediction to files that other tools read."""

from pathlib import Path
from typing import TYPE_CHECKING

from stpath_assets.errors import StorageError
from stpath_assets.slides import Registry
from stpath_assets.storage import Store, atomic_file
from stpath_assets.tables import TILE_GRIDS

if TYPE_CHECKING:
    import anndata


def write_h5ad(prediction: "anndata.AnnData", path: Path) -> Path:
    """Writes an AnnData as .h5ad, complete or not at all. Raises `StorageError` where it cannot be written."""
    if path.suffix != ".h5ad":
        raise StorageError(f"{path}: an AnnData's file ends in .h5ad; name it so")
    with atomic_file(path) as draft:
        prediction.write_h5ad(draft, compression="gzip")
    return path


def write_trident(store: Store, slide_id: str, path: Path) -> Path:
    """Writes a slide's stored tiles and features in TRIDENT's layout (`features.trident`).

    Raises `StorageError` where they are missing or it cannot be written, `FeatureError` where the two do not belong together.
    """
    from stpath_assets.features import read_features, trident

    row, features = Registry(store).get(slide_id), read_features(store, slide_id)
    tiles = store.read(TILE_GRIDS.name, slide_id)
    # Only a regular grid has a stride; elsewhere tiles overlap as they happen to.
    stride = float(store.require(TILE_GRIDS.name, slide_id).facts.get("tile_stride", 1.0))
    overlap_px = max(0, round((1 - stride) * tiles["tile_px"][0].as_py()))
    return trident.write(path, row, tiles, features.matrix, features.facts, overlap_px)
