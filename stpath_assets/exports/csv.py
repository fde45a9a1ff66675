"""Writes a prediction as CSV: a row a tile, its place, and a column a gene."""

from pathlib import Path

from stpath_assets.exports.formats import Wanted, chosen
from stpath_assets.settings import Settings
from stpath_assets.storage import atomic_file


def write(settings: Settings, wanted: Wanted, path: Path) -> None:
    """Write slide_id, tile_id, centre in level-0 pixels, model, and log1p expression of each gene."""
    import pandas as pd

    found = chosen(settings, wanted)
    centers = found.obsm["spatial"]
    places = pd.DataFrame(
        {
            "slide_id": wanted.slide_id,
            "tile_id": found.obs["tile_id"].to_numpy(),
            "center_x_px": centers[:, 0],
            "center_y_px": centers[:, 1],
            "model": str(found.uns["histo"]["model"]),
        }
    )
    values = pd.DataFrame(found.X, columns=found.var_names)
    with atomic_file(path) as draft:
        compression = "gzip" if path.name.lower().endswith(".gz") else None
        pd.concat([places, values], axis=1).to_csv(draft, index=False, compression=compression)
