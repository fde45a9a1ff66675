"""Writes a slide as a SpatialData store: the scan, its tiles as shapes, predictions as a table, and measured spots if any.

All elements share one coordinate system, `global`: level-0 pixels of the scan. Needs the library, `stpath-assets[eval]`.
"""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from stpath_assets.errors import ExportError
from stpath_assets.exports.annotated import measured_of
from stpath_assets.exports.destination import atomic_folder
from stpath_assets.exports.formats import WHOLE, Wanted, chosen
from stpath_assets.settings import Settings
from stpath_assets.slides import Registry, Slide
from stpath_assets.spots import read_spots
from stpath_assets.spots.lattice import pitch_of
from stpath_assets.storage import Store
from stpath_assets.tables import TILE_GRIDS
from stpath_assets.tiles import sides_of

if TYPE_CHECKING:
    import anndata

TILES, SPOTS, IMAGE, TABLE, MEASURED = "tiles", "spots", "scan", "predictions", "measured"
_BLOCK_PX = 2048
_OVERVIEW_PX = 2048
_SMALLEST_PX = 1024


def write(settings: Settings, wanted: Wanted, path: Path) -> None:
    """Write the store. With `image="copy"` the whole scan is in it, with levels that halve, else an overview of it and the scan's
    path and SHA-256 in `attrs`.
    """
    try:
        import spatialdata
    except ImportError as e:
        raise ExportError("the library spatialdata is not installed; type: pip install 'stpath-assets[eval]'") from e
    from spatialdata.transformations import Identity

    store = Store.of(settings)
    row, found = Registry(store).get(wanted.slide_id), chosen(settings, wanted)
    sides = sides_of(store.read(TILE_GRIDS.name, wanted.slide_id))
    with warnings.catch_warnings(), atomic_folder(path) as draft:
        warnings.simplefilter("ignore")  # of its dependencies, about each other
        shapes: dict[str, Any] = {TILES: _squares(found, sides)}
        tables = {TABLE: _table(found, TILES)}
        if row.spots_uri is not None:
            spots = read_spots(Path(row.spots_uri))
            radius = (spots.spot_diameter_px or pitch_of(spots.xy_px) * 0.55) / 2
            shapes[SPOTS] = spatialdata.models.ShapesModel.parse(
                spots.xy_px,
                geometry=0,
                radius=radius,
                index=np.array(spots.spot_ids),
                transformations={"global": Identity()},
            )
            tables[MEASURED] = _table(measured_of(spots), SPOTS)
        with row.open() as slide:
            image = _whole(slide) if wanted.image == WHOLE else _overview(slide)
            attrs = {"slide_id": row.slide_id, "scan": {"uri": row.uri, "sha256": row.sha256, "mpp": list(row.mpp_xy)}}
            data = spatialdata.SpatialData(images={IMAGE: image}, shapes=shapes, tables=tables, attrs=attrs)
            data.write(draft)


def _squares(found: "anndata.AnnData", sides: tuple[float, float]) -> Any:
    """Return the tiles as polygons, level-0 pixels."""
    import geopandas
    import shapely
    from spatialdata.models import ShapesModel
    from spatialdata.transformations import Identity

    x, y = found.obsm["spatial"].T
    boxes = shapely.box(x - sides[0] / 2, y - sides[1] / 2, x + sides[0] / 2, y + sides[1] / 2)
    frame = geopandas.GeoDataFrame(geometry=boxes, index=found.obs_names.to_numpy())
    return ShapesModel.parse(frame, transformations={"global": Identity()})


def _table(data: "anndata.AnnData", region: str) -> "anndata.AnnData":
    """Return an AnnData as a table that annotates shapes of the same index."""
    import pandas as pd
    from spatialdata.models import TableModel

    data = data.copy()
    data.obs["region"] = pd.Categorical([region] * data.n_obs)
    data.obs["instance_id"] = data.obs_names.to_numpy()
    # The scan is an element of its own here.
    data.uns.pop("spatial", None)
    return TableModel.parse(data, region=region, region_key="region", instance_key="instance_id")


def _overview(slide: Slide) -> Any:
    from spatialdata.models import Image2DModel
    from spatialdata.transformations import Scale

    picture = slide.thumbnail(_OVERVIEW_PX)
    x, y = slide.width_px / picture.shape[1], slide.height_px / picture.shape[0]
    return Image2DModel.parse(
        picture.transpose(2, 0, 1), dims=("c", "y", "x"), c_coords=["r", "g", "b"],
        transformations={"global": Scale([x, y], axes=("x", "y"))},
    )  # fmt: skip


def _whole(slide: Slide) -> Any:
    """Return the scan as an image of several scales, read block by block when it is written."""
    import dask
    import dask.array as da
    from spatialdata.models import Image2DModel
    from spatialdata.transformations import Identity

    def read(x: int, y: int, width: int, height: int) -> npt.NDArray[np.uint8]:
        return slide.read_level(0, x, y, width, height).transpose(2, 0, 1)

    rows = []
    for y in range(0, slide.height_px, _BLOCK_PX):
        height = min(_BLOCK_PX, slide.height_px - y)
        blocks = []
        for x in range(0, slide.width_px, _BLOCK_PX):
            width = min(_BLOCK_PX, slide.width_px - x)
            lazy = dask.delayed(read)(x, y, width, height)
            blocks.append(da.from_delayed(lazy, (3, height, width), np.uint8))
        rows.append(blocks)
    halvings = max(0, int(np.log2(max(1, min(slide.width_px, slide.height_px) / _SMALLEST_PX))))
    return Image2DModel.parse(
        da.block(rows), dims=("c", "y", "x"), c_coords=["r", "g", "b"],
        transformations={"global": Identity()}, scale_factors=[2] * halvings or None, chunks=(3, _BLOCK_PX, _BLOCK_PX),
    )  # fmt: skip
