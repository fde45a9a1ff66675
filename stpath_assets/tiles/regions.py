"""Regions drawn by a person, which replace, restrict or cut the tissue mask.

They are read from GeoJSON as QuPath writes it: polygons in level-0 pixels with a class name. No pixels are read here.
"""

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from skimage import draw

from stpath_assets.errors import TissueError

REPLACE, CUT = "tissue", "ignore"
"""Classes that replace the mask and that are cut out of it, in upper or lower case, with or without QuPath's `*`. All other
classes restrict it.
"""

Ring = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Region:
    """One polygon: `name` is its class in lower case without `*`, `rings` its outline and then its holes, each (K, 2)
    x and y in level-0 pixels.
    """

    name: str
    rings: tuple[Ring, ...]


@dataclass(frozen=True)
class Regions:
    """The polygons of a file and the SHA-256 of its content."""

    source: str
    sha256: str
    polygons: tuple[Region, ...]

    def apply(
        self, mask: npt.NDArray[np.bool_], width_px: int, height_px: int, slide: str = ""
    ) -> npt.NDArray[np.bool_]:
        """Return the mask (H, W) of a scan of this size with the regions applied.

        If there are `Tissue` regions, they replace the mask. If there are regions of other classes, the mask is restricted to
        them. `Ignore` regions are cut out. Raises `TissueError` if no region touches the scan.
        """
        scale = (mask.shape[1] / width_px, mask.shape[0] / height_px)
        drawn = [(r.name, _raster(r, mask.shape, scale)) for r in self.polygons]
        if not any(a.any() for _, a in drawn):
            raise TissueError(
                f"{slide or self.source}: none of the {len(drawn)} regions of {self.source} touches the scan "
                f"({width_px} by {height_px} px); export them in pixels of this scan"
            )
        replacing = [a for name, a in drawn if name == REPLACE]
        cutting = [a for name, a in drawn if name == CUT]
        within = [a for name, a in drawn if name not in (REPLACE, CUT)]
        out = np.logical_or.reduce(replacing) if replacing else mask.copy()
        if within:
            out &= np.logical_or.reduce(within)
        return out & ~np.logical_or.reduce(cutting) if cutting else out


def read_regions(path: str | Path) -> Regions:
    """Read a GeoJSON file: a FeatureCollection, a Feature, a geometry, or a list of Features.

    Raises `TissueError`, one line with the file and what is wrong with it.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
        data = json.loads(content)
    except OSError as e:
        raise TissueError(f"{path}: regions cannot be read ({e.strerror or e}); check --regions") from e
    except ValueError as e:
        raise TissueError(f"{path.name}: is not GeoJSON ({e}); export it from QuPath as GeoJSON") from e
    polygons = tuple(_polygons(data, path.name))
    if not polygons:
        raise TissueError(f"{path.name}: holds no region; draw polygons and export them as GeoJSON")
    return Regions(path.name, hashlib.sha256(content).hexdigest(), polygons)


def _polygons(data: Any, name: str) -> Iterator[Region]:
    features = data.get("features", [data]) if isinstance(data, dict) else data
    if not isinstance(features, list):
        raise TissueError(f"{name}: is not GeoJSON (no list of features); export it from QuPath as GeoJSON")
    for i, feature in enumerate(features):
        feature = feature if isinstance(feature, dict) else {}
        geometry = feature.get("geometry", feature) or {}
        kind, coordinates = geometry.get("type"), geometry.get("coordinates")
        if kind not in ("Polygon", "MultiPolygon"):
            raise TissueError(
                f"{name}: feature {i + 1} is a {kind or 'thing without a type'}; regions are polygons only"
            )
        for rings in [coordinates] if kind == "Polygon" else coordinates or []:
            yield Region(_class(feature), tuple(_ring(r, f"{name}: feature {i + 1}") for r in rings or []))


def _class(feature: dict[str, Any]) -> str:
    """Return the feature's QuPath class, written as `{"name": …}` or, in older versions, a plain name; empty if it has none."""
    properties = feature.get("properties") or {}
    class_ = properties.get("classification") or ""
    text = class_.get("name", "") if isinstance(class_, dict) else class_
    return str(text).strip().rstrip("*").lower()


def _ring(points: Any, where: str) -> Ring:
    try:
        ring = np.array([(float(p[0]), float(p[1])) for p in points])
    except (TypeError, ValueError, IndexError, KeyError) as e:
        raise TissueError(f"{where}: has coordinates that are no numbers; export it again") from e
    if len(ring) < 3 or not all(math.isfinite(v) for v in ring.ravel()):
        raise TissueError(f"{where}: is no polygon ({len(ring)} points); export it again")
    return ring


def _raster(region: Region, shape: tuple[int, ...], scale: tuple[float, float]) -> npt.NDArray[np.bool_]:
    """Return the pixels whose centre lies inside the outline and outside its holes."""
    out = np.zeros(shape, bool)
    for i, ring in enumerate(region.rings):
        rows, columns = draw.polygon(ring[:, 1] * scale[1] - 0.5, ring[:, 0] * scale[0] - 0.5, shape)
        out[rows, columns] = i == 0
    return out
