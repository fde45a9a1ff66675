"""Writes tiles with their expression as GeoJSON, which QuPath imports as detections with measurements."""

import gzip
import json
from pathlib import Path
from typing import IO, Any, cast

from stpath_assets.exports.formats import Wanted, chosen
from stpath_assets.settings import Settings
from stpath_assets.storage import Store, atomic_file
from stpath_assets.tables import TILE_GRIDS
from stpath_assets.tiles import sides_of


def write(settings: Settings, wanted: Wanted, path: Path) -> None:
    """Write a FeatureCollection: a square a tile, level-0 pixels, with log1p expression of each gene as a measurement.

    In QuPath: drag the file onto the open slide, then Measure › Show measurement maps.
    """
    found = chosen(settings, wanted)
    side_x, side_y = sides_of(Store.of(settings).read(TILE_GRIDS.name, wanted.slide_id))
    model, genes = str(found.uns["histo"]["model"]), list(found.var_names)
    with atomic_file(path) as draft:
        with (gzip.open if path.name.lower().endswith(".gz") else open)(draft, "wt") as opened:
            file = cast("IO[str]", opened)
            file.write('{"type": "FeatureCollection", "features": [')
            for i, (tile_id, (x, y)) in enumerate(
                zip(found.obs["tile_id"], found.obsm["spatial"].tolist(), strict=True)
            ):
                left, top, right, bottom = x - side_x / 2, y - side_y / 2, x + side_x / 2, y + side_y / 2
                ring = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
                values = dict(zip(genes, map(float, found.X[i]), strict=True))
                file.write((",\n" if i else "\n") + json.dumps(_feature(tile_id, ring, model, values)))
            file.write("\n]}\n")


def _feature(tile_id: str, ring: list[list[float]], model: str, values: dict[str, float]) -> dict[str, Any]:
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {
            "objectType": "detection",
            "name": tile_id,
            "classification": {"name": f"predicted by {model}"},
            "measurements": {f"{gene} (log1p)": value for gene, value in values.items()},
        },
    }
