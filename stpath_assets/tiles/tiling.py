"""Makes a slide's table of tiles, and reads the tiles' pixels.

Geometry is in `grid` and `layouts`, the mask in `tissue` and `regions`, measures and the filter in `quality`, pixels in
`reader`. `survey` combines them, and `storing` stores the result.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stpath_assets.errors import SlideError
from stpath_assets.slides import Slide, slide_id_from_name
from stpath_assets.storage import pictures
from stpath_assets.tiles.grid import TILE_MPP, TILE_PX, Grid
from stpath_assets.tiles.layouts import MIN_TISSUE, HasSpots, RegularGrid, SpotGrid
from stpath_assets.tiles.quality import QualityParameters
from stpath_assets.tiles.reader import OnUnreadable, read_batches, read_tiles
from stpath_assets.tiles.regions import Regions, read_regions
from stpath_assets.tiles.survey import TileParameters, notes_of, survey_slide
from stpath_assets.tiles.tissue import TissueParameters


@dataclass(frozen=True, repr=False)
class Tiles:
    """The tiles of one slide: `table` has the columns of `tile_grids` and at least one row."""

    slide: Slide
    table: pa.Table

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def slide_id(self) -> str:
        """The slide's id."""
        return str(self.table["slide_id"][0])

    @property
    def tile_px(self) -> int:
        """Side of a tile as the encoder sees it, pixels."""
        return int(self.table["tile_px"][0].as_py())

    @property
    def mpp(self) -> float:
        """Scale of a tile as the encoder sees it, µm per pixel."""
        return float(self.table["mpp"][0].as_py())

    @property
    def tile_ids(self) -> list[str]:
        """The tile_ids, in table order."""
        return self.table["tile_id"].to_pylist()

    @property
    def centers_px(self) -> npt.NDArray[np.float64]:
        """The tiles' centres, (N, 2) float64 level-0 pixels."""
        return centers_of(self.table)

    @property
    def grid(self) -> Grid:
        """The tiles' geometry."""
        return grid_of(self.table)

    def __repr__(self) -> str:
        return f"<{len(self)} tiles of {self.slide_id}: {self.tile_px} px at {self.mpp:g} µm/px>"

    def _repr_html_(self) -> str:
        fraction = np.median(self.table["tissue_fraction"].to_numpy())
        facts = {
            "tiles": len(self),
            "each": f"{self.tile_px} px at {self.mpp:g} µm/px, {sides_of(self.table)[0]:g} px of the scan",
            "median tissue": f"{fraction:.0%}",
        }
        try:
            image = outlined(self.slide, self.table)
        except (ValueError, OSError, SlideError):  # closed, or not readable any more
            image = None
        return pictures.card(f"tiles of {self.slide_id}", facts, image, 320)

    def pixels(self) -> Iterator[npt.NDArray[np.uint8]]:
        """Yield each tile, (tile_px, tile_px, 3) uint8 RGB, in table order."""
        return read_tiles(self.slide, self.grid, self.tile_px)

    def batches(self, size: int) -> Iterator[npt.NDArray[np.uint8]]:
        """Yield the tiles in table order in batches of `size`, (size, tile_px, tile_px, 3) uint8 RGB; the last may be smaller."""
        return read_batches(self.slide, self.grid, self.tile_px, size)


def centers_of(table: pa.Table) -> npt.NDArray[np.float64]:
    """Return the centres of the tiles of a `tile_grids` table, (N, 2) float64 level-0 pixels."""
    return np.stack([table["center_x_px"].to_numpy(), table["center_y_px"].to_numpy()], axis=1)


def tile(
    slide: Slide,
    tile_px: int = TILE_PX,
    mpp: float = TILE_MPP,
    *,
    min_tissue: float = MIN_TISSUE,
    stride: float = 1.0,
    tissue: TissueParameters | None = None,
    quality: QualityParameters | bool = True,
    regions: str | Path | Regions | None = None,
    spots: HasSpots | npt.NDArray | None = None,
    on_unreadable: OnUnreadable = "fail",
) -> Tiles:
    """Find the tissue of a slide and place tiles on it.

    `stride` is the distance between tiles, in tile sides. `quality` says which tiles are dropped (False: none; they are still
    measured). `regions`, a GeoJSON file, replaces or restricts the tissue mask. With `spots`, measured ones or an (N, 2) array of
    centres in level-0 pixels, tiles are centred on the spots instead. Every spot whose tile lies inside the scan then has a tile,
    whatever its tissue and quality. With `on_unreadable="drop"`, tiles whose pixels cannot be decoded are left out, with a
    warning that counts them.

    The same scan gives the same table, byte for byte. Warns of dropped tiles, and if the scan is coarser than the tiles, which
    are then enlarged. Raises `TissueError` if no tile is left.
    """
    chosen = quality if isinstance(quality, QualityParameters) else QualityParameters(drop=quality)
    layout = RegularGrid(stride, min_tissue, chosen) if spots is None else SpotGrid.of(spots)
    parameters = TileParameters(tile_px, mpp, layout, tissue or TissueParameters(), on_unreadable)
    if regions is not None and not isinstance(regions, Regions):
        regions = read_regions(regions)
    slide_id = slide_id_from_name(slide.name)
    survey = survey_slide(slide, slide_id, parameters, regions)
    survey.require_tiles()
    for note in notes_of(slide_id, max(slide.mpp_xy), mpp, survey.summary()):
        warnings.warn(note, stacklevel=2)
    return Tiles(slide, survey.table)


def sides_of(table: pa.Table) -> tuple[float, float]:
    """Return the sides along x and y of the tiles of a `tile_grids` table, level-0 pixels."""
    side_px = float(table["side_px"][0].as_py())
    # Earlier versions did not store it.
    side_y_px = table["side_y_px"][0].as_py() if "side_y_px" in table.column_names else None
    return side_px, side_px if side_y_px is None else side_y_px


def outlined(slide: Slide, table: pa.Table, longest_px: int = 320) -> npt.NDArray[np.uint8]:
    """Return a small picture of the slide with its tiles outlined, (H, W, 3) uint8."""
    from stpath_assets.tiles.overlay import TILE_COLOURS, draw_boxes

    image = slide.thumbnail(longest_px, partly=True)
    corners = np.stack([table["x_px"].to_numpy(), table["y_px"].to_numpy()], axis=1)
    return draw_boxes(image, (slide.width_px, slide.height_px), corners, sides_of(table), TILE_COLOURS["kept"])


def grid_of(table: pa.Table) -> Grid:
    """Return the geometry of the tiles of a `tile_grids` table."""
    ids, x, y = table["tile_id"].to_pylist(), table["x_px"].to_numpy(), table["y_px"].to_numpy()
    return Grid.of_tile_ids(ids, x, y, *sides_of(table))
