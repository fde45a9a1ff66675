"""From a slide to its table of tiles, and from the table to pixels.

What `tile_grids` stores. Geometry is in `grid`, the mask in `tissue`, pixels in `reader`.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stpath_assets.errors import TissueError
from stpath_assets.fingerprint import Fingerprint
from stpath_assets.slides import Registered, Slide, slide_id_from_name
from stpath_assets.storage import Made, Store
from stpath_assets.tables import TILE_GRIDS
from stpath_assets.tiles.grid import Grid, box_means, regular_grid, side_in_level0
from stpath_assets.tiles.reader import read_tiles
from stpath_assets.tiles.tissue import CODE_VERSION as TISSUE_CODE_VERSION
from stpath_assets.tiles.tissue import TissueParameters, tissue_mask

CODE_VERSION = "1"

MIN_TISSUE = 0.25
"""Least tissue fraction of a tile that is kept."""

COARSER = 0.02
"""How much coarser than its tiles a scan may be before the user is told, relative: 0.50 and 0.51 are the same
objective.
"""


@dataclass(frozen=True)
class TileParameters:
    """What a grid depends on beside the scan: `tile_px` pixels at `mpp` µm per pixel, with `min_tissue` of
    tissue at least.
    """

    tile_px: int = 224
    mpp: float = 0.5
    min_tissue: float = MIN_TISSUE
    tissue: TissueParameters = field(default_factory=TissueParameters)

    def __post_init__(self) -> None:
        if self.tile_px < 1 or not self.mpp > 0 or not 0 <= self.min_tissue <= 1:
            raise ValueError("tile_px must be ≥ 1, mpp > 0 and min_tissue from 0 to 1")

    def extend(self, slide: Fingerprint) -> Fingerprint:
        """The fingerprint of the grid of a slide."""
        return slide.extend(
            "tile_grids", f"{CODE_VERSION}.{TISSUE_CODE_VERSION}", tile_px=self.tile_px, tile_mpp=self.mpp,
            min_tissue=self.min_tissue, **self.tissue.facts(),
        )  # fmt: skip


@dataclass(frozen=True)
class Tiles:
    """The tiles of one slide: `table` has the columns of `tile_grids`, in table order, at least one row."""

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
    def enlargement(self) -> float:
        """How many times the tiles enlarge the scan: above 1 where the scan is coarser than they are."""
        return self.slide.mpp / self.mpp

    @property
    def tile_ids(self) -> list[str]:
        """Their tile_ids."""
        return self.table["tile_id"].to_pylist()

    @property
    def centers_px(self) -> npt.NDArray[np.float64]:
        """Their centres, (N, 2) float64 level-0 pixels."""
        return centers_of(self.table)

    @property
    def grid(self) -> Grid:
        """Their geometry."""
        t = self.table
        return Grid.of_tile_ids(
            t["tile_id"].to_pylist(),
            t["x_px"].to_numpy(),
            t["y_px"].to_numpy(),
            float(t["side_px"][0].as_py()),
        )

    def pixels(self) -> Iterator[npt.NDArray[np.uint8]]:
        """Yields each tile, (tile_px, tile_px, 3) uint8 RGB, in table order."""
        return read_tiles(self.slide, self.grid, self.tile_px)


def covered(tiles: Tiles) -> float:
    """Share of the slide's area that its tiles cover, 0 to 1."""
    return len(tiles) * tiles.grid.side_px**2 / (tiles.slide.width_px * tiles.slide.height_px)


def centers_of(table: pa.Table) -> npt.NDArray[np.float64]:
    """Centres of the tiles of a `tile_grids` table, (N, 2) float64 level-0 pixels."""
    return np.stack([table["center_x_px"].to_numpy(), table["center_y_px"].to_numpy()], axis=1)


def tile(
    slide: Slide,
    tile_px: int = 224,
    mpp: float = 0.5,
    *,
    min_tissue: float = MIN_TISSUE,
    tissue: TissueParameters | None = None,
) -> Tiles:
    """Finds the tissue of a slide and lays the grid of tiles over it.

    The same scan gives the same table, byte for byte. Warns where the scan is coarser than the tiles, which
    are then enlarged. Raises `TissueError` where no tile has `min_tissue` of tissue.
    """
    parameters = TileParameters(tile_px, mpp, min_tissue, tissue or TissueParameters())
    return _tile(slide, slide_id_from_name(slide.name), parameters)


def store_tiles(store: Store, row: Registered, parameters: TileParameters) -> Made:
    """Brings a registered slide's `tile_grids` up to date."""
    fingerprint = parameters.extend(row.fingerprint)
    if store.is_current(TILE_GRIDS.name, row.slide_id, fingerprint):
        return Made(fingerprint, False)
    with row.open() as slide:
        store.write(TILE_GRIDS.name, row.slide_id, _tile(slide, row.slide_id, parameters).table, fingerprint)
    return Made(fingerprint, True)


def _tile(slide: Slide, slide_id: str, parameters: TileParameters) -> Tiles:
    side_px = side_in_level0(parameters.tile_px, parameters.mpp, slide.mpp)
    grid = regular_grid(slide.width_px, slide.height_px, side_px)
    if len(grid) == 0:
        raise TissueError(
            f"{slide_id}: {slide.width_px} by {slide.height_px} pixels is smaller than one tile of "
            f"{parameters.tile_px * parameters.mpp:g} µm; check its mpp, {slide.mpp:g}"
        )
    mask = tissue_mask(slide, parameters.tissue)
    height, width = mask.shape
    fraction = box_means(
        mask,
        grid.x_px * width / slide.width_px,
        grid.y_px * height / slide.height_px,
        side_px * width / slide.width_px,
    )
    keep = fraction >= max(parameters.min_tissue, np.finfo(float).tiny)
    if not keep.any():
        raise TissueError(
            f"{slide_id}: no tissue found: none of {len(grid)} tiles is at least {parameters.min_tissue:.0%} tissue "
            f"({mask.mean():.1%} of the slide is); look at the scan, or retire it"
        )
    tiles = Tiles(slide, _table(slide_id, grid.take(keep), fraction[keep], parameters))
    if tiles.enlargement > 1 + COARSER:
        warnings.warn(enlarged(slide_id, slide.mpp, parameters.mpp), stacklevel=3)
    return tiles


def enlarged(slide_id: str, slide_mpp: float, tile_mpp: float) -> str:
    """What the user is told of a scan that is coarser than its tiles."""
    return (
        f"{slide_id}: the scan has {slide_mpp:g} µm per pixel, coarser than the tiles' {tile_mpp:g}: "
        f"they are enlarged {slide_mpp / tile_mpp:.2f} times"
    )


def _table(slide_id: str, grid: Grid, fraction: npt.NDArray, parameters: TileParameters) -> pa.Table:
    n = len(grid)
    half = grid.side_px / 2
    return pa.table(
        {
            "slide_id": pa.repeat(slide_id, n),
            "tile_id": grid.tile_ids(),
            "x_px": grid.x_px,
            "y_px": grid.y_px,
            "center_x_px": grid.x_px + half,
            "center_y_px": grid.y_px + half,
            "side_px": np.full(n, grid.side_px),
            "tile_px": np.full(n, parameters.tile_px, np.int32),
            "mpp": np.full(n, parameters.mpp),
            "tissue_fraction": fraction,
        },
        schema=TILE_GRIDS.schema,
    )
