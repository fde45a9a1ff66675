"""Regions that are drawn in the viewer: kept as GeoJSON in the data root, and registered as the slide's regions.

A save writes a new file, regions/<slide_id>/<digest>.geojson, and never changes one: a file of the user's own stays as it is, and
earlier drawings stay too. What regions do to the tissue mask is in `tiles.regions`.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from stpath_assets.errors import StpathError, TissueError
from stpath_assets.slides import Registered, Registry
from stpath_assets.storage import Store, atomic_file
from stpath_assets.tiles import read_regions

MOST_BYTES = 4 * 2**20
NONE = "none"
"""Digest of no regions."""


class RegionsChangedError(StpathError):
    """Someone else saved regions of the slide since the page read them."""


def read_drawn(row: Registered) -> dict[str, Any]:
    """Return a slide's regions: polygons as a GeoJSON FeatureCollection, and the digest of their file.

    Raises `TissueError` if the file is missing or wrong.
    """
    if row.regions_uri is None:
        return {"digest": NONE, "regions": _collection([])}
    regions = read_regions(row.regions_uri)
    features = [
        {
            "type": "Feature",
            "properties": {"objectType": "annotation", "classification": {"name": region.name.capitalize()}},
            "geometry": {"type": "Polygon", "coordinates": [_closed(ring.tolist()) for ring in region.rings]},
        }
        for region in regions.polygons
    ]
    return {"digest": regions.sha256, "regions": _collection(features)}


def save_drawn(store: Store, row: Registered, collection: Any, before: str) -> str:
    """Keep a slide's regions, a GeoJSON FeatureCollection of polygons in level-0 pixels, and return the digest of their file.

    Without features, the slide has no regions afterwards. `before` is the digest that the page read. Raises
    `RegionsChangedError` if it is another one by now, `TissueError` if a region is no polygon or none touches the scan.
    """
    registry = Registry(store)
    if (now := read_drawn(registry.get(row.slide_id))["digest"]) != before:
        raise RegionsChangedError(
            f"{row.slide_id}: its regions were changed since this page read them ({now[:8]}, not {before[:8]}); reload it"
        )
    features = collection.get("features") if isinstance(collection, dict) else None
    if not isinstance(features, list):
        raise TissueError(f"{row.slide_id}: regions are a GeoJSON FeatureCollection")
    if not features:
        registry.keep_regions(row.slide_id, None)
        return NONE
    text = json.dumps(_collection(features), indent=1).encode()
    digest = hashlib.sha256(text).hexdigest()
    path = folder_of(store.home, row.slide_id) / f"{digest[:16]}.geojson"
    with atomic_file(path) as draft:
        draft.write_bytes(text)
        _check(draft, row)
    registry.keep_regions(row.slide_id, path)
    return digest


def folder_of(home: Path, slide_id: str) -> Path:
    """Return the folder of a slide's drawn regions."""
    return home / "regions" / slide_id


def _check(path: Path, row: Registered) -> None:
    """Refuse what `tile_grids` would refuse later. The mask is coarse: it asks only whether anything lies on the scan."""
    import numpy as np

    mask = np.ones((max(1, row.height_px // 64), max(1, row.width_px // 64)), bool)
    try:
        read_regions(path).apply(mask, row.width_px, row.height_px, row.slide_id)
    except TissueError as e:
        raise TissueError(f"{row.slide_id}: {str(e).replace(path.name, 'the drawing')}") from e


def _collection(features: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "FeatureCollection", "features": features}


def _closed(ring: list[list[float]]) -> list[list[float]]:
    return ring if ring[0] == ring[-1] else [*ring, ring[0]]
