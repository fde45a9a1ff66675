"""Regions drawn by a person, which replace, restrict or cut the tissue mask.

They are read from GeoJSON as QuPath writes it: polygons in level-0 pixels with a class name. No pixels are read here.
"""

import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from skimage import draw

from stpath_assets.errors import TissueError, describe, one_line

REPLACE, CUT, _WITHIN = "tissue", "ignore", ""
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
        union = {kind: np.zeros(mask.shape, bool) for kind in {_kind(r.name) for r in self.polygons}}
        for region in self.polygons:
            _draw(region, union[_kind(region.name)], scale)
        if not any(drawn.any() for drawn in union.values()):
            raise TissueError(
                f"{slide or self.source}: none of the {len(self.polygons)} regions of {self.source} touches the scan "
                f"({width_px} by {height_px} px); export them in pixels of this scan"
            )
        out = union.get(REPLACE, mask).copy()
        if _WITHIN in union:
            out &= union[_WITHIN]
        return out & ~union[CUT] if CUT in union else out


def read_regions(path: str | Path) -> Regions:
    """Read a GeoJSON file: a FeatureCollection, a Feature, a geometry, or a list of Features.

    Raises `TissueError`, one line with the file and what is wrong with it.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
        sha256, text = hashlib.sha256(content).hexdigest(), content.decode("utf-8")
        del content  # one form of the file after the other: it may have a hundred megabytes
        data = json.loads(text, object_hook=_with_rings)
    except OSError as e:
        raise TissueError(f"{path}: regions cannot be read ({e.strerror or e}); check --regions") from e
    except (ValueError, RecursionError) as e:
        raise TissueError(f"{path.name}: is not GeoJSON ({describe(e, 80)}); export it from QuPath as GeoJSON") from e
    polygons = tuple(_polygons(data, path.name))
    if not polygons:
        raise TissueError(f"{path.name}: holds no region; draw polygons and export them as GeoJSON")
    return Regions(path.name, sha256, polygons)


def _with_rings(found: dict[str, Any]) -> dict[str, Any]:
    """Replace the coordinates of a geometry by its polygons' rings, or by the error. As Python's lists, the points of 100,000
    polygons take gigabytes.
    """
    kind, coordinates = found.get("type"), found.get("coordinates")
    if kind in ("Polygon", "MultiPolygon"):
        try:
            polygons: Any = [coordinates] if kind == "Polygon" else coordinates
            found["coordinates"] = [tuple(_ring(r) for r in rings) for rings in polygons or []]
        except (TypeError, ValueError, IndexError, KeyError, OverflowError) as e:
            is_ours = isinstance(e, _NoPolygon)
            found["coordinates"] = str(e) if is_ours else "has coordinates that are no numbers; export it again"
    if "geometry" in found:
        return {"geometry": found["geometry"], "class": _class(found)}
    return found


def _polygons(data: Any, name: str) -> Iterator[Region]:
    features = data.get("features", [data]) if isinstance(data, dict) else data
    if not isinstance(features, list):
        raise TissueError(f"{name}: is not GeoJSON (no list of features); export it from QuPath as GeoJSON")
    for i, feature in enumerate(features):
        feature = feature if isinstance(feature, dict) else {}
        geometry = feature.get("geometry", feature)
        kind = geometry.get("type") if isinstance(geometry, dict) else None
        if kind not in ("Polygon", "MultiPolygon"):
            raise TissueError(
                f"{name}: feature {i + 1} is a {one_line(str(kind))[:40] if kind else 'thing without a type'}; "
                "regions are polygons only"
            )
        drawn = geometry.get("coordinates", [])
        if isinstance(drawn, str):
            raise TissueError(f"{name}: feature {i + 1}: {drawn}")
        for rings in drawn:
            yield Region(feature.get("class", ""), rings)


def _class(feature: dict[str, Any]) -> str:
    """Return the feature's QuPath class, written as `{"name": …}` or, in older versions, a plain name; empty if it has none."""
    properties = feature.get("properties")
    class_ = properties.get("classification") if isinstance(properties, dict) else ""
    text = class_.get("name", "") if isinstance(class_, dict) else class_ or ""
    return sys.intern(str(text).strip().rstrip("*").lower())


class _NoPolygon(ValueError):
    """Points that are no polygon."""


def _ring(points: Any) -> Ring:
    ring = np.array([(float(p[0]), float(p[1])) for p in points])
    if len(ring) < 3 or not np.isfinite(ring).all():
        raise _NoPolygon(f"is no polygon ({len(ring)} points); export it again")
    return ring


def _kind(name: str) -> str:
    return name if name in (REPLACE, CUT) else _WITHIN


def _draw(region: Region, mask: npt.NDArray[np.bool_], scale: tuple[float, float]) -> None:
    """Set the pixels of a mask whose centre lies inside the outline and outside its holes."""
    if not region.rings:
        return
    # In the polygon's own box, so that thousands of small ones cost no mask each.
    height, width = mask.shape
    low, high = region.rings[0].min(axis=0) * scale, region.rings[0].max(axis=0) * scale
    left, top = (int(min(max(v, 0), most)) for v, most in zip(low, (width, height), strict=True))
    right, bottom = (int(min(max(v + 1, 0), most)) for v, most in zip(high, (width, height), strict=True))
    if right <= left or bottom <= top:
        return
    box = np.zeros((bottom - top, right - left), bool)
    for i, ring in enumerate(region.rings):
        rows, columns = draw.polygon(ring[:, 1] * scale[1] - 0.5 - top, ring[:, 0] * scale[0] - 0.5 - left, box.shape)
        box[rows, columns] = i == 0
    mask[top:bottom, left:right] |= box
