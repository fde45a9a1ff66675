"""Writes heat maps as OME-TIFF: a channel a gene, a pixel a tile. QuPath, napari and OMERO open it."""

from pathlib import Path

import numpy as np
import tifffile

from stpath_assets.errors import ExportError
from stpath_assets.exports.formats import Wanted, chosen
from stpath_assets.settings import Settings
from stpath_assets.storage import Store, atomic_file
from stpath_assets.tables import TILE_GRIDS


def write(settings: Settings, wanted: Wanted, path: Path) -> None:
    """Write log1p expression as float32 (genes, rows, columns), NaN where no tile is, with the size of a pixel in µm.

    The first pixel is the first tile of the grid, at the scan's top-left corner. Raises `ExportError` for tiles that are not on a
    regular grid.
    """
    found = chosen(settings, wanted)
    if "array_row" not in found.obs:
        raise ExportError(
            f"{wanted.slide_id}: its tiles are on no regular grid, so no picture has a pixel for each; take csv"
        )
    rows, columns = found.obs["array_row"].to_numpy(), found.obs["array_col"].to_numpy()
    maps = np.full((found.n_vars, rows.max() + 1, columns.max() + 1), np.nan, np.float32)
    maps[:, rows, columns] = found.X.T
    stride = float(Store.of(settings).require(TILE_GRIDS.name, wanted.slide_id).facts.get("tile_stride", 1.0))
    um = stride * float(found.uns["histo"]["mpp"]) * 224
    metadata = {
        "axes": "CYX",
        "Channel": {"Name": list(found.var_names)},
        "PhysicalSizeX": um,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": um,
        "PhysicalSizeYUnit": "µm",
        "Description": f"log1p expression predicted by {found.uns['histo']['model']}",
    }
    with atomic_file(path) as draft:
        # tifffile writes OME only to names of that ending.
        tifffile.imwrite(draft, maps, ome=True, metadata=metadata, compression="zlib", photometric="minisblack")
