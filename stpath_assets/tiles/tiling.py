"""From a slide to its table of tiles, and from the table to pixels.

What `tile_grids` stores. Geometry is in `grid`, the mask in `tissue` and `regions`, measures and the filter in `quality`,
pixels in `reader`; `survey` puts them together.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stpath_assets.errors import TilesLostError, TissueError
from stpath_assets.slides import Registered, Slide, slide_id_from_name
from stpath_assets.storage import Made, Store, pictures
from stpath_assets.tables import TILE_GRIDS
from stpath_assets.tiles.given import GivenTiles
from stpath_assets.tiles.grid import Grid, union_share
from stpath_assets.tiles.quality import REASONS, QualityParameters, sentence, share_lost
from stpath_assets.tiles.reader import OnUnreadable, read_batches, read_tiles
from stpath_assets.tiles.regions import Regions, read_regions
from stpath_assets.tiles.survey import MIN_TISSUE, HasSpots, Survey, TileParameters, digest_of, survey_slide
from stpath_assets.tiles.tissue import TissueParameters

__all__ = ["TileParameters", "Tiles", "centers_of", "covered", "sides_of", "store_tiles", "tile"]

COARSER = 0.02
"""How much coarser than its tiles a scan may be before the user is told, relative: 0.50 and 0.51 are the same
objective.
"""


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
        """How many times the tiles enlarge the scan: above 1 where the scan is coarser than they are, along x or y."""
        return max(self.slide.mpp_xy) / self.mpp

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
        return _grid_of(self.table)

    def pixels(self) -> Iterator[npt.NDArray[np.uint8]]:
        """Yields each tile, (tile_px, tile_px, 3) uint8 RGB, in table order."""
        return read_tiles(self.slide, self.grid, self.tile_px)

    def batches(self, size: int) -> Iterator[npt.NDArray[np.uint8]]:
        """Yields the tiles in table order, `size` at a time and last what is left: (size, tile_px, tile_px, 3) uint8 RGB."""
        return read_batches(self.slide, self.grid, self.tile_px, size)


def covered(tiles: Tiles) -> float:
    """Share of the slide's area that its tiles cover, 0 to 1; where they overlap, it counts once."""
    return union_share(tiles.grid, tiles.slide.width_px, tiles.slide.height_px)


def centers_of(table: pa.Table) -> npt.NDArray[np.float64]:
    """Centres of the tiles of a `tile_grids` table, (N, 2) float64 level-0 pixels."""
    return np.stack([table["center_x_px"].to_numpy(), table["center_y_px"].to_numpy()], axis=1)


def tile(
    slide: Slide,
    tile_px: int = 224,
    mpp: float = 0.5,
    *,
    min_tissue: float = MIN_TISSUE,
    stride: float = 1.0,
    tissue: TissueParameters | None = None,
    quality: QualityParameters | bool = True,
    regions: str | Path | Regions | None = None,
    spots: HasSpots | npt.NDArray | None = None,
    on_unreadable: OnUnreadable = "fail",
) -> Tiles:
    """Finds the tissue of a slide and lays tiles over it.

    `stride` is the distance from one tile to the next in tile sides. `quality` says which tiles are dropped as bad
    (False: none; they are measured all the same). `regions`, a GeoJSON file, replaces or restricts the tissue mask. With
    `spots`, measured ones or an (N, 2) array of centres in level-0 pixels, tiles are centred on them instead, and every
    spot whose tile lies inside the scan has one, whatever its tissue and quality. With `on_unreadable="drop"`, tiles whose
    pixels cannot be decoded are left out, with a warning that counts them.

    The same scan gives the same table, byte for byte. Warns where the scan is coarser than the tiles, which
    are then enlarged, and of dropped tiles. Raises `TissueError` where no tile is left.
    """
    chosen = quality if isinstance(quality, QualityParameters) else QualityParameters(drop=quality)
    parameters = TileParameters(tile_px, mpp, min_tissue, stride, tissue or TissueParameters(), chosen, on_unreadable)
    if regions is not None and not isinstance(regions, Regions):
        regions = read_regions(regions)
    slide_id = slide_id_from_name(slide.name)
    survey = survey_slide(slide, slide_id, parameters, regions, spots)
    _require_tiles(survey, parameters)
    for note in notes_of(slide_id, max(slide.mpp_xy), mpp, survey.summary()):
        warnings.warn(note, stacklevel=2)
    return Tiles(slide, survey.table)


def store_tiles(
    store: Store,
    row: Registered,
    parameters: TileParameters,
    spots: HasSpots | None = None,
    given: GivenTiles | None = None,
) -> Made:
    """Brings a registered slide's `tile_grids` and its picture figures/<slide_id>/tiles.png up to date.

    `given` are the tiles of the file of features that belongs to the slide; all of them are kept.
    The picture is drawn even where no tile is left, which raises `TissueError`: it shows why.
    """
    if (given is None) != (row.features_uri is None):
        raise ValueError(f"{row.slide_id}: tiles are given where features_uri is set, and only there")
    if given is not None:
        parameters = replace(parameters, tile_px=given.tile_px, mpp=given.mpp)
    regions = None if row.regions_uri is None else read_regions(row.regions_uri)
    fingerprint = parameters.extend(
        row.fingerprint, None if regions is None else regions.sha256, None if spots is None else digest_of(spots), given
    )
    picture = overlay_path(store, row.slide_id)
    current = store.is_current(TILE_GRIDS.name, row.slide_id, fingerprint)
    if not (current and pictures.is_current(picture, fingerprint.digest)):
        with row.open() as slide:
            survey = survey_slide(slide, row.slide_id, parameters, regions, spots, given)
        pictures.save_image(survey.overlay(), picture, fingerprint.digest)
        _require_tiles(survey, parameters)
        if not current:
            store.write(TILE_GRIDS.name, row.slide_id, survey.table, fingerprint, survey.summary())
    summary = store.summary(TILE_GRIDS.name, row.slide_id)
    notes = (*(given.notes if given else ()), *notes_of(row.slide_id, max(row.mpp_xy), parameters.mpp, summary))
    return Made(fingerprint, not current, notes)


def overlay_path(store: Store, slide_id: str) -> Path:
    """Where the picture of a slide's tiles belongs."""
    return store.home / "figures" / slide_id / "tiles.png"


def notes_of(slide_id: str, slide_mpp: float, tile_mpp: float, summary: dict[str, Any]) -> Iterator[str]:
    """What the user is told of a slide's tiles, a line each; `slide_mpp` is the coarser of x and y."""
    if slide_mpp / tile_mpp > 1 + COARSER:
        yield (
            f"{slide_id}: the scan has {slide_mpp:g} µm per pixel, coarser than the tiles' {tile_mpp:g}: "
            f"they are enlarged {slide_mpp / tile_mpp:.2f} times"
        )
    dropped = {reason: len(ids) for reason, ids in summary["dropped"].items()}
    if dropped:
        yield f"{slide_id}: {sum(dropped.values())} of {summary['candidates']} tiles of tissue dropped: {sentence(dropped)}"
    if summary["outside"]:
        yield f"{slide_id}: {summary['outside']} spots are too near the scan's edge for a tile"


def _require_tiles(survey: Survey, parameters: TileParameters) -> None:
    if survey.table.num_rows:
        return
    summary = survey.summary()
    if summary["outside"]:
        raise TissueError(
            f"{survey.slide_id}: no spot has room for its tile inside the scan; check the spots' positions and the mpp"
        )
    if summary["candidates"]:
        dropped = {reason: len(ids) for reason, ids in summary["dropped"].items()}
        raise TilesLostError(
            f"{survey.slide_id}: all {summary['candidates']} tiles of tissue were dropped: {sentence(dropped)}; "
            "look at the scan, switch quality_filter off, or retire it"
        )
    raise TissueError(
        f"{survey.slide_id}: no tissue found: none of {survey.places} tiles is at least {parameters.min_tissue:.0%} tissue "
        f"({summary['tissue_share']:.1%} of the slide is); look at the scan, or retire it"
    )


def tile_numbers(store: Store, row: Registered) -> dict[str, Any]:
    """What sums up a slide's stored tiles: counts, shares from 0 to 1 under the names of `tile_grids`, and medians."""
    table, summary = store.read(TILE_GRIDS.name, row.slide_id), store.summary(TILE_GRIDS.name, row.slide_id)
    dropped = {reason: len(summary["dropped"].get(reason, [])) for reason in REASONS}
    grid = _grid_of(table)
    medians = {name: pc.quantile(table[name], 0.5)[0].as_py() for name in ("tissue_fraction", "saturation", "focus")}
    return {
        "tiles": table.num_rows,
        "side_px": grid.side_px,
        "enlargement": max(row.mpp_xy) / table["mpp"][0].as_py(),
        "covered": union_share(grid, row.width_px, row.height_px),
        "tissue_share": summary["tissue_share"],
        "pen_share": summary["pen_share"],
        "lost": share_lost(summary["candidates"], dropped),
        **{f"dropped_{reason}": n for reason, n in dropped.items()},
        **{f"median_{name}": value for name, value in medians.items() if value is not None},
    }


def sides_of(table: pa.Table) -> tuple[float, float]:
    """Sides along x and y of the tiles of a `tile_grids` table, level-0 pixels."""
    side_px = float(table["side_px"][0].as_py())
    # Absent in what earlier versions stored.
    side_y_px = table["side_y_px"][0].as_py() if "side_y_px" in table.column_names else None
    return side_px, side_px if side_y_px is None else side_y_px


def _grid_of(table: pa.Table) -> Grid:
    ids, x, y = table["tile_id"].to_pylist(), table["x_px"].to_numpy(), table["y_px"].to_numpy()
    return Grid.of_tile_ids(ids, x, y, *sides_of(table))
